"""Class-balanced sampling (CBGS, arXiv:1908.09492): frames are repeated so that rare classes are seen as often."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray


def class_balanced_indices(label_sets: Sequence[Collection[int]], random: np.random.Generator) -> NDArray[np.int64]:
    """Return indices of frames, repeated and shuffled, in which every class has an equal share of the draws.

    With D = the sum over the classes of the frames that show them, each of the C classes that occur at all gives D // C
    of its frames. Frames without a label are never drawn, as in CBGS. A class's frames are gone through evenly before
    any is repeated, where CBGS draws with replacement: the shares are the same, and fewer frames are left out.

    Args:
        label_sets: the labels that each frame shows.

    Raises:
        ValueError: no frame shows a label.
    """
    shown = sorted({label for labels in label_sets for label in labels})
    frames = [np.array([i for i, labels in enumerate(label_sets) if label in labels]) for label in shown]
    if not frames:
        raise ValueError(f"{len(label_sets)} frames show no object, but balancing needs at least one; turn it off")
    share = sum(map(len, frames)) // len(frames)
    drawn = np.concatenate([_evenly(candidates, share, random) for candidates in frames])
    return random.permutation(drawn).astype(np.int64)


def _evenly(candidates: NDArray[np.int64], count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Return `count` of the candidates, each as often as any other or once more."""
    whole, rest = divmod(count, len(candidates))
    return np.concatenate((np.tile(candidates, whole), random.choice(candidates, rest, replace=False)))
