"""Projections onto planes, view frusta and crystal cells."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tf_transformations.vectors import _EPS, unit_vector

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

# Eigenvalues this close to a value count as equal to it.
_EIGENVALUE_TOLERANCE = 1e-8


def projection_matrix(
    point: Sequence[float],
    normal: Sequence[float],
    direction: Sequence[float] | None = None,
    perspective: Sequence[float] | None = None,
    pseudo: bool = False,
) -> Matrix:
    """Return the projection onto the plane through `point` with this normal.

    From the centre `perspective` where given, else along `direction` where given, else along the normal. With `pseudo`,
    a perspective projection keeps the order of depths: orthogonal times pseudo-perspective is perspective.
    """
    point = np.asarray(point[:3], dtype=np.float64)
    normal = unit_vector(normal[:3])
    offset = np.dot(point, normal)
    matrix = np.identity(4)
    if perspective is not None:
        centre = np.asarray(perspective[:3], dtype=np.float64)
        matrix[:3, :3] = np.dot(centre - point, normal) * np.identity(3) - np.outer(centre, normal)
        matrix[:3, 3] = offset * centre
        if pseudo:
            matrix[:3, :3] -= np.outer(normal, normal)
            matrix[:3, 3] += offset * normal
        matrix[3, :3] = -normal
        matrix[3, 3] = np.dot(centre, normal)
        return matrix
    ray = normal if direction is None else np.asarray(direction[:3], dtype=np.float64)
    along_ray = ray / np.dot(ray, normal)
    matrix[:3, :3] -= np.outer(along_ray, normal)
    matrix[:3, 3] = offset * along_ray
    return matrix


def projection_from_matrix(
    matrix: ArrayLike, pseudo: bool = False
) -> tuple[Vector, Vector, Vector | None, Vector | None, bool]:
    """Return the arguments of `projection_matrix` for a projection: point (4,), normal, direction, perspective, pseudo.

    `pseudo` tells which kind of perspective projection the matrix is.

    Raises:
        ValueError: the matrix is no projection.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    fixed_point = None if pseudo else _eigenvector(matrix, 1.0, last=True)
    if fixed_point is not None:
        direction = _eigenvector(matrix[:3, :3], 0.0)
        if direction is None:
            raise ValueError("the matrix is no projection: no eigenvalue of its upper left 3 x 3 part is 0")
        normal = _eigenvector(matrix[:3, :3].T, 0.0)
        if normal is None:
            return fixed_point / fixed_point[3], unit_vector(direction), None, None, False
        return fixed_point / fixed_point[3], unit_vector(normal), unit_vector(direction), None, False
    values, vectors = np.linalg.eig(matrix)
    nonzero = np.flatnonzero(np.abs(values.real) > _EIGENVALUE_TOLERANCE)
    if nonzero.size == 0:
        raise ValueError("the matrix is no projection: all its eigenvalues are 0")
    point = vectors[:, nonzero[-1]].real
    point = point / point[3]
    normal = -matrix[3, :3]
    perspective = matrix[:3, 3] / np.dot(point[:3], normal)
    if pseudo:
        perspective = perspective - normal
    return point, normal, None, perspective, pseudo


def _eigenvector(matrix: Matrix, value: float, last: bool = False) -> Vector | None:
    """Return the real part of the first (or last) eigenvector with this eigenvalue, or None."""
    values, vectors = np.linalg.eig(matrix)
    found = np.flatnonzero(np.abs(values.real - value) < _EIGENVALUE_TOLERANCE)
    return vectors[:, found[-1 if last else 0]].real if found.size else None


def clip_matrix(
    left: float, right: float, bottom: float, top: float, near: float, far: float, perspective: bool = False
) -> Matrix:
    """Return the transform of a view volume to normalised device coordinates in [-1, 1].

    A box; with `perspective` a truncated pyramid with its tip in the origin, whose transformed points are still to be
    divided by their fourth coordinate.

    Raises:
        ValueError: a lower bound is not below its upper one, or `near` is not positive in a perspective.
    """
    if left >= right or bottom >= top or near >= far:
        raise ValueError(f"invalid frustum: x {left}..{right}, y {bottom}..{top}, z {near}..{far} do not all increase")
    low = np.array([left, bottom, near], dtype=np.float64)
    high = np.array([right, top, far], dtype=np.float64)
    size = high - low
    middle = (high + low) / size
    if not perspective:
        matrix = np.diag([*(2.0 / size), 1.0])
        matrix[:3, 3] = -middle
        return matrix
    if near <= _EPS:
        raise ValueError(f"invalid frustum: near is {near}, not above 0")
    matrix = np.zeros((4, 4))
    matrix[[0, 1], [0, 1]] = -2.0 * near / size[:2]
    matrix[:3, 2] = [middle[0], middle[1], -middle[2]]
    matrix[2, 3] = 2.0 * near * far / size[2]
    matrix[3, 2] = -1.0
    return matrix


def orthogonalization_matrix(lengths: Sequence[float], angles: Sequence[float]) -> Matrix:
    """Return the transform of fractional coordinates in a crystal cell (sides, angles in degrees) to Cartesian ones."""
    a, b, c = lengths
    sin_alpha, sin_beta, _ = np.sin(np.radians(angles))
    cos_alpha, cos_beta, cos_gamma = np.cos(np.radians(angles))
    cosine = (cos_alpha * cos_beta - cos_gamma) / (sin_alpha * sin_beta)
    return np.array(
        [
            [a * sin_beta * math.sqrt(1.0 - cosine * cosine), 0.0, 0.0, 0.0],
            [-a * sin_beta * cosine, b * sin_alpha, 0.0, 0.0],
            [a * cos_beta, b * cos_alpha, c, 0.0],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
