# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Class-balanced sampling (CBGS, arXiv:1908.09492): frames with rare classes are repeated."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray


def class_balanced_indices(label_sets: Sequence[Collection[int]], random: np.random.Generator) -> NDArray[np.int64]:
    """Return shuffled indices of frames, with repeats, in which every class has an equal share of the draws.

    Let D be the sum over the classes of the number of frames that show them. Each of the C classes that occur
    contributes D // C of its frames. As in CBGS, frames without a label are never drawn. CBGS draws with replacement;
    this function draws all frames of a class before it repeats any, which leaves out fewer frames at equal shares.

    Args:
        label_sets: the labels in each frame.

    Raises:
        ValueError: no frame has a label.
    """
    classes = sorted({label for labels in label_sets for label in labels})
    frames = [np.array([i for i, labels in enumerate(label_sets) if label in labels]) for label in classes]
    if not frames:
        raise ValueError(
            f"{len(label_sets)} frames show no object of the model's classes, needed one: check the names of the "
            "categories in the data, and 'classes' in the preset or the rig file (--rig)"
        )
    share = sum(map(len, frames)) // len(frames)
    drawn = np.concatenate([_draw_evenly(candidates, share, random) for candidates in frames])
    return random.permutation(drawn).astype(np.int64)


def _draw_evenly(candidates: NDArray[np.int64], count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Return `count` of the candidates; the numbers of repeats differ by at most one."""
    whole, rest = divmod(count, len(candidates))
    return np.concatenate((np.tile(candidates, whole), random.choice(candidates, rest, replace=False)))
