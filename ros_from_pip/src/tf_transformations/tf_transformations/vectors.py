"""Lengths and directions of vectors."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

# What counts as zero.
_EPS = np.finfo(float).eps * 4.0


def vector_norm(
    data: ArrayLike, axis: int | None = None, out: NDArray[np.float64] | None = None
) -> float | NDArray[np.float64] | None:
    """Return the Euclidean length along `axis`, or of all elements; a float for one vector.

    With `out`, write the lengths there and return None.
    """
    data = np.asarray(data, dtype=np.float64)
    if out is not None:
        np.sqrt(np.sum(data * data, axis=axis), out=out)
        return None
    if data.ndim == 1:
        return math.sqrt(np.dot(data, data))
    return np.atleast_1d(np.sqrt(np.sum(data * data, axis=axis)))


def unit_vector(
    data: ArrayLike, axis: int | None = None, out: NDArray[np.float64] | None = None
) -> NDArray[np.float64] | None:
    """Return `data` divided by its length along `axis`, or by that of all elements.

    With `out` (which may be `data` itself), write the result there and return None.
    """
    vectors = np.asarray(data, dtype=np.float64)
    if vectors.ndim == 1:
        length = np.asarray(math.sqrt(np.dot(vectors, vectors)))
    else:
        length = np.sqrt(np.sum(vectors * vectors, axis=axis, keepdims=axis is not None))
    if out is None:
        return vectors / length
    out[...] = vectors / length
    return None


def random_vector(size: int | tuple[int, ...]) -> NDArray[np.float64]:
    """Return random numbers of [0, 1), of the given shape, from NumPy's global generator."""
    return np.random.random(size)
