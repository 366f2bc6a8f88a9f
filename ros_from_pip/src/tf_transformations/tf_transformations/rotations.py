"""Rotations as Euler angles, quaternions (x, y, z, w) and matrices."""

import math

import numpy as np
import transforms3d
from numpy.typing import ArrayLike, NDArray

from tf_transformations.vectors import _EPS, unit_vector

Axes = str | tuple[int, int, int, int]
Quaternion = tuple[float, float, float, float]
Matrix = NDArray[np.float64]


def _homogeneous(rotation: NDArray[np.float64]) -> Matrix:
    return transforms3d.affines.compose(np.zeros(3), rotation, np.ones(3))


def _reorder_input_quaternion(quaternion: ArrayLike) -> Quaternion:
    """Return a ROS quaternion in the order of transforms3d."""
    x, y, z, w = quaternion
    return w, x, y, z


def _reorder_output_quaternion(quaternion: ArrayLike) -> Quaternion:
    """Return a quaternion of transforms3d in the order of ROS."""
    w, x, y, z = quaternion
    return x, y, z, w


def euler_matrix(ai: float, aj: float, ak: float, axes: Axes = "sxyz") -> Matrix:
    """Return the matrix (4, 4) of three Euler angles."""
    return _homogeneous(transforms3d.euler.euler2mat(ai, aj, ak, axes=axes))


def euler_from_matrix(matrix: ArrayLike, axes: Axes = "sxyz") -> tuple[float, float, float]:
    """Return Euler angles of a matrix (3, 3) or (4, 4); others may describe it too."""
    return transforms3d.euler.mat2euler(matrix, axes=axes)


def euler_from_quaternion(quaternion: ArrayLike, axes: Axes = "sxyz") -> tuple[float, float, float]:
    """Return Euler angles of a quaternion; others may describe it too."""
    return euler_from_matrix(quaternion_matrix(quaternion), axes)


def quaternion_from_euler(ai: float, aj: float, ak: float, axes: Axes = "sxyz") -> Quaternion:
    """Return the quaternion of three Euler angles."""
    return _reorder_output_quaternion(transforms3d.euler.euler2quat(ai, aj, ak, axes=axes))


def quaternion_about_axis(angle: float, axis: ArrayLike) -> Quaternion:
    """Return the quaternion of a rotation by `angle` about `axis` (3,), which may have any length."""
    return _reorder_output_quaternion(transforms3d.quaternions.axangle2quat(axis, angle))


def quaternion_matrix(quaternion: ArrayLike) -> Matrix:
    """Return the rotation matrix (4, 4) of a quaternion of any length; the identity for one of length zero."""
    return _homogeneous(transforms3d.quaternions.quat2mat(_reorder_input_quaternion(quaternion)))


def quaternion_from_matrix(matrix: ArrayLike) -> Quaternion:
    """Return the quaternion, with w not negative, of the rotation in an affine transform (4, 4)."""
    return _reorder_output_quaternion(transforms3d.quaternions.mat2quat(transforms3d.affines.decompose(matrix)[1]))


def quaternion_multiply(quaternion1: ArrayLike, quaternion0: ArrayLike) -> Quaternion:
    """Return the product: the rotation `quaternion0` followed by `quaternion1`."""
    return _reorder_output_quaternion(
        transforms3d.quaternions.qmult(_reorder_input_quaternion(quaternion1), _reorder_input_quaternion(quaternion0))
    )


def quaternion_conjugate(quaternion: ArrayLike) -> NDArray[np.float64]:
    """Return (-x, -y, -z, w)."""
    return np.array(
        _reorder_output_quaternion(transforms3d.quaternions.qconjugate(_reorder_input_quaternion(quaternion))),
        dtype=np.float64,
    )


def quaternion_inverse(quaternion: ArrayLike) -> NDArray[np.float64]:
    """Return the quaternion whose product with the given one, of any length, is (0, 0, 0, 1)."""
    # transforms3d's qinverse divides by the length, not its square, and so is right for unit quaternions only.
    return quaternion_conjugate(quaternion) / np.dot(quaternion, quaternion)


def quaternion_slerp(
    quat0: ArrayLike, quat1: ArrayLike, fraction: float, spin: int = 0, shortestpath: bool = True
) -> NDArray[np.float64]:
    """Return the unit quaternion at `fraction` of the way along the great circle from `quat0` to `quat1`.

    `spin` adds as many half turns on the way; without `shortestpath`, the way is not turned round where it is longer.
    The fraction may lie outside [0, 1]. With these three, neither SciPy nor transforms3d can do it; the formula is
    Shoemake's (Animating rotation with quaternion curves, 1985).
    """
    start = unit_vector(quat0[:4])
    end = unit_vector(quat1[:4])
    if fraction == 0.0:
        return start
    if fraction == 1.0:
        return end
    cosine = np.dot(start, end)
    if abs(abs(cosine) - 1.0) < _EPS:
        return start
    if shortestpath and cosine < 0.0:
        cosine, end = -cosine, -end
    angle = math.acos(cosine) + spin * math.pi
    if abs(angle) < _EPS:
        return start
    return (math.sin((1.0 - fraction) * angle) * start + math.sin(fraction * angle) * end) / math.sin(angle)


def random_quaternion(rand: ArrayLike | None = None) -> NDArray[np.float64]:
    """Return a unit quaternion, uniformly distributed where the three numbers `rand` are so over [0, 1).

    None takes the three from NumPy's global generator. Shoemake, Uniform random rotations (Graphics Gems III, 1992).

    Raises:
        AssertionError: `rand` has not three elements.
    """
    if rand is None:
        rand = np.random.rand(3)
    assert len(rand) == 3, f"rand has {len(rand)} elements, not 3"
    radii = np.sqrt([1.0 - rand[0], rand[0]])
    angles = 2.0 * np.pi * np.asarray(rand[1:], dtype=np.float64)
    return (radii[:, None] * np.stack([np.sin(angles), np.cos(angles)], axis=1)).reshape(4)


def random_rotation_matrix(rand: ArrayLike | None = None) -> Matrix:
    """Return the matrix (4, 4) of a `random_quaternion`."""
    return quaternion_matrix(random_quaternion(rand))
