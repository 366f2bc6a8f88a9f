"""Affine transforms: made from parts, taken apart, multiplied."""

import math
from collections.abc import Sequence

import numpy as np
import transforms3d
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

TRANSLATION_IDENTITY = [0.0, 0.0, 0.0]
ROTATION_IDENTITY = np.identity(3, dtype=np.float64)
ZOOM_IDENTITY = [1.0, 1.0, 1.0]
SHEAR_IDENTITY = TRANSLATION_IDENTITY


def identity_matrix() -> Matrix:
    """Return the transform that changes nothing."""
    return translation_matrix(TRANSLATION_IDENTITY)


def translation_matrix(direction: ArrayLike) -> Matrix:
    """Return the translation by `direction` (3,)."""
    return transforms3d.affines.compose(direction, ROTATION_IDENTITY, ZOOM_IDENTITY)


def translation_from_matrix(matrix: ArrayLike) -> Vector:
    """Return the translation (3,) of a transform."""
    return transforms3d.affines.decompose(matrix)[0]


def reflection_matrix(point: Sequence[float], normal: ArrayLike) -> Matrix:
    """Return the reflection at the plane through `point` (its first three elements count) with this normal (3,)."""
    return transforms3d.reflections.rfnorm2aff(normal, point[:3])


def reflection_from_matrix(matrix: ArrayLike) -> tuple[Vector, Vector]:
    """Return a point of the plane of a reflection, and its normal."""
    normal, point = transforms3d.reflections.aff2rfnorm(matrix)
    return point, normal


def rotation_matrix(angle: float, direction: ArrayLike, point: ArrayLike | None = None) -> Matrix:
    """Return the rotation by `angle` about the axis along `direction` through `point` (None: the origin)."""
    return transforms3d.axangles.axangle2aff(direction, angle, point=point)


def rotation_from_matrix(matrix: ArrayLike) -> tuple[float, Vector, Vector]:
    """Return the angle of a rotation, the direction of its axis and a point (4,) of it."""
    direction, angle, point = transforms3d.axangles.aff2axangle(matrix)
    return angle, direction, point


def scale_matrix(factor: float, origin: ArrayLike | None = None, direction: ArrayLike | None = None) -> Matrix:
    """Return the scaling by `factor` about `origin`, along `direction` alone where given."""
    return transforms3d.zooms.zfdir2aff(factor, direction=direction, origin=origin)


def scale_from_matrix(matrix: ArrayLike) -> tuple[float, Vector, Vector | None]:
    """Return the factor of a scaling, its origin, and its direction (None where it scales all directions alike)."""
    factor, direction, origin = transforms3d.zooms.aff2zfdir(matrix)
    return factor, origin, direction


def shear_matrix(angle: float, direction: ArrayLike, point: ArrayLike, normal: ArrayLike) -> Matrix:
    """Return the shear by `angle` along `direction`, which lies in the plane through `point` with this normal."""
    return transforms3d.shears.sadn2aff(angle, direction, normal, point)


def shear_from_matrix(matrix: ArrayLike) -> tuple[float, Vector, Vector, Vector]:
    """Return angle and direction of a shear, a point of its plane and the plane's normal."""
    angle, direction, normal, point = transforms3d.shears.aff2sadn(matrix)
    return angle, direction, point, normal


def decompose_matrix(matrix: ArrayLike) -> tuple[Vector, Vector, tuple[float, float, float], Vector, None]:
    """Return (scale, shear, Euler angles about static x, y, z, translation, None) of an affine transform.

    The last place is that of a perspective part, which these functions do not treat.
    """
    translation, rotation, zoom, shear = transforms3d.affines.decompose(matrix)
    return zoom, shear, transforms3d.euler.mat2euler(rotation), translation, None


def compose_matrix(
    scale: ArrayLike | None = None,
    shear: ArrayLike | None = None,
    angles: Sequence[float] | None = None,
    translate: ArrayLike | None = None,
    perspective: ArrayLike | None = None,
) -> Matrix:
    """Return the transform with these parts, the inverse of `decompose_matrix`. `perspective` is ignored."""
    return transforms3d.affines.compose(
        TRANSLATION_IDENTITY if translate is None else translate,
        ROTATION_IDENTITY if angles is None else transforms3d.euler.euler2mat(*angles),
        ZOOM_IDENTITY if scale is None else scale,
        SHEAR_IDENTITY if shear is None else shear,
    )


def superimposition_matrix(v0: ArrayLike, v1: ArrayLike, scaling: bool = False, usesvd: bool = True) -> Matrix:
    """Return the rotation, translation and (with `scaling`) uniform scale that map points v0 to v1 with least squares.

    Args:
        v0: points (3, N) or (4, N), N at least 3.
        v1: as many points.
        scaling: fit a scale too, as the ratio of the points' spreads.
        usesvd: chooses between two ways to the same minimum in the original, and makes no difference here.

    Raises:
        ValueError: the shapes differ, or there are too few points.
    """
    v0 = np.asarray(v0, dtype=np.float64)[:3]
    v1 = np.asarray(v1, dtype=np.float64)[:3]
    if v0.shape != v1.shape or v0.shape[1] < 3:
        raise ValueError(f"v0 {v0.shape} and v1 {v1.shape} must have the same shape (3 or 4, N), N at least 3")
    centre0 = v0.mean(axis=1)
    centre1 = v1.mean(axis=1)
    v0 = v0 - centre0[:, None]
    v1 = v1 - centre1[:, None]
    linear = Rotation.align_vectors(v1.T, v0.T)[0].as_matrix()
    if scaling:
        linear = linear * math.sqrt(np.sum(v1 * v1) / np.sum(v0 * v0))
    matrix = np.identity(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = centre1 - linear @ centre0
    return matrix


def inverse_matrix(matrix: ArrayLike) -> Matrix:
    """Return the inverse of a square matrix."""
    return np.linalg.inv(matrix)


def concatenate_matrices(*matrices: ArrayLike) -> Matrix:
    """Return the product of (4, 4) matrices, from left to right."""
    product = np.identity(4)
    for matrix in matrices:
        product = np.dot(product, matrix)
    return product


def is_same_transform(matrix0: ArrayLike, matrix1: ArrayLike) -> bool:
    """Return whether two matrices (4, 4) do the same to homogeneous points, whatever their lower right elements."""
    matrix0 = np.asarray(matrix0, dtype=np.float64)
    matrix1 = np.asarray(matrix1, dtype=np.float64)
    return np.allclose(matrix0 / matrix0[3, 3], matrix1 / matrix1[3, 3])
