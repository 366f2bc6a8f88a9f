# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Order of the training samples: a pure function of the seed and the sample's number."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.class_balance import class_balanced_indices

# Each use of a seed has its number, because NumPy draws the same from the seeds (seed, 3) and (seed, 3, 0).
_ORDER, _AUGMENTATION = 1, 2


class Draw(NamedTuple):
    """One sample of the order.

    Attributes:
        epoch: number of the pass over the data.
        place: position in that pass.
        sample: index into the data set.
        progress: progress of the training, 0..1.
    """

    epoch: int
    place: int
    sample: int
    progress: float

    def rng(self, seed: int) -> np.random.Generator:
        """Return the random generator of this draw's augmentation."""
        # By position in the pass, not by index, because repeated samples need different augmentations.
        return np.random.default_rng((seed, _AUGMENTATION, self.epoch, self.place))


class SampleOrder:
    """Endless order of samples: shuffled passes over the data.

    Args:
        length: number of samples in the data set.
        seed: seed of the order and of the augmentation.
        label_sets: labels in each sample; each pass is then class-balanced, see `class_balanced_indices`. Without
            them, a pass has each sample once.
        period: number of samples after which the order repeats; None for no repetition.

    Raises:
        ValueError: there are no samples, or no labels to balance.
    """

    def __init__(
        self, length: int, seed: int, label_sets: Sequence[Collection[int]] | None = None, period: int | None = None
    ) -> None:
        if length < 1:
            raise ValueError("the training data holds no samples, needed at least one; check --data-root and --frames")
        if label_sets is not None and len(label_sets) != length:
            raise ValueError(f"{len(label_sets)} label sets were given for {length} samples, needed one for each")
        self.seed = seed
        self._length, self._label_sets, self._period = length, label_sets, period
        self._epoch, self._indices = 0, self._shuffled(0)

    @property
    def pass_length(self) -> int:
        """Number of samples in one pass."""
        return len(self._indices)

    def draw(self, number: int, progress: float = 0.0) -> Draw:
        """Return sample number 0, 1, 2, ... of the order."""
        if self._period is not None:
            # Progress stays constant, too: growing augmentation would change the repeated samples.
            number, progress = number % self._period, 0.0
        epoch, place = divmod(number, self.pass_length)
        if epoch != self._epoch:
            self._epoch, self._indices = epoch, self._shuffled(epoch)
        return Draw(epoch, place, int(self._indices[place]), progress)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng((self.seed, _ORDER, epoch))
        if self._label_sets is None:
            return rng.permutation(self._length)
        return class_balanced_indices(self._label_sets, rng)
