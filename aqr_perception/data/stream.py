"""The order in which samples are seen, and the batches made of them by worker processes.

Sample number n of a training is a pure function of the seed and n, as is its augmentation. So a resumed training goes
on exactly where it was, with any number of workers, and several processes see together what one would see alone.
"""

import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from aqr_perception.data.batch import Batch
from aqr_perception.data.class_balance import class_balanced_indices

SampleT = TypeVar("SampleT")
SampleT_co = TypeVar("SampleT_co", covariant=True)

# What a seed is spent on: without it, NumPy would give (seed, 3) and (seed, 3, 0) the same numbers.
_ORDER, _AUGMENTATION = 1, 2


class Samples(Protocol[SampleT_co]):
    """A data set, ready for training."""

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: np.random.Generator, progress: float) -> SampleT_co:
        """Return a sample, augmented and corrupted by `rng` alone.

        Args:
            index: 0 <= index < len.
            rng: seeded for this sample of this epoch; always the same one for the same training.
            progress: of the training, 0..1, for augmentation that grows.
        """
        ...


class Draw(NamedTuple):
    """One sample of the stream: which pass over the data, its place in that pass, which sample, when."""

    epoch: int
    place: int
    sample: int
    progress: float


class Stream:
    """An endless order of samples: one shuffled pass over the data after another."""

    def __init__(
        self, length: int, seed: int, label_sets: Sequence[Collection[int]] | None = None, period: int | None = None
    ) -> None:
        """Set up the order of `length` samples.

        Args:
            length: of the data set.
            seed: of the order.
            label_sets: the labels that each sample shows; then each pass is class-balanced, see
                `class_balanced_indices`. None: a pass has each sample once.
            period: after so many samples the stream starts again with the same ones; None for never.

        Raises:
            ValueError: there are no samples, or no labels to balance.
        """
        if length < 1:
            raise ValueError("the training data holds no samples: check the data's path and what was filtered out")
        if label_sets is not None and len(label_sets) != length:
            raise ValueError(f"{len(label_sets)} label sets were given for {length} samples, needed one for each")
        self.seed = seed
        self._length, self._label_sets, self._period = length, label_sets, period
        self._epoch, self._order = 0, self._pass(0)

    @property
    def pass_length(self) -> int:
        """Samples of one pass."""
        return len(self._order)

    def draw(self, number: int, progress: float = 0.0) -> Draw:
        """Return the stream's sample number 0, 1, 2, ..."""
        if self._period is not None:
            # Progress stands still, too: augmentation that grows would make other samples of them.
            number, progress = number % self._period, 0.0
        epoch, place = divmod(number, self.pass_length)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._pass(epoch)
        return Draw(epoch, place, int(self._order[place]), progress)

    def _pass(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng((self.seed, _ORDER, epoch))
        if self._label_sets is None:
            return rng.permutation(self._length)
        return class_balanced_indices(self._label_sets, rng)


@dataclass(frozen=True)
class _Batches(Sampler[list[Draw]]):
    """One process's share of every batch, without end, from some sample number on."""

    stream: Stream
    start: int
    batch_size: int
    rank: int
    processes: int
    progress: Callable[[int], float]

    def __iter__(self) -> Iterator[list[Draw]]:
        number = self.start
        while True:
            first = number + self.rank * self.batch_size
            progress = self.progress(number)
            yield [self.stream.draw(first + i, progress) for i in range(self.batch_size)]
            number += self.batch_size * self.processes


@dataclass(frozen=True)
class _Drawn(Dataset, Generic[SampleT]):
    """A data set asked for draws instead of indices."""

    samples: Samples[SampleT]
    seed: int

    def __getitem__(self, draw: Draw) -> SampleT:
        # By place, not by index: a sample that comes twice in a pass is augmented differently each time.
        rng = np.random.default_rng((self.seed, _AUGMENTATION, draw.epoch, draw.place))
        return self.samples.sample(draw.sample, rng, draw.progress)


def batches(
    samples: Samples[SampleT],
    collate: Callable[[Sequence[SampleT]], Batch],
    stream: Stream,
    *,
    start: int,
    batch_size: int,
    workers: int,
    progress: Callable[[int], float],
    rank: int = 0,
    processes: int = 1,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Return one process's batches, without end.

    Args:
        samples, collate: the data, and what makes a batch of some of it. With `workers` they run in other processes.
        stream: the order.
        start: number of the first sample; all processes together have seen those before.
        batch_size: of this process.
        workers: processes that prepare batches ahead; 0 for none.
        progress: sample number -> progress of the training.
        rank, processes: which share of each batch is this process's.
        pin_memory: whether tensors should be ready for a quick copy to a GPU.
    """
    loader = DataLoader(
        _Drawn(samples, stream.seed),
        batch_sampler=_Batches(stream, start, batch_size, rank, processes, progress),
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
        # Its own: a loader that is made anew on resuming must not draw from the model's random numbers.
        generator=torch.Generator().manual_seed(stream.seed),
    )
    return iter(loader)


def _start_worker(_: int) -> None:
    # Signals go to the whole process group. The training process decides; its workers end when it does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Each worker is one of many: OpenCV's own threads would only get in each other's way.
    cv2.setNumThreads(0)
