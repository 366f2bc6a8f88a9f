# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Conversions between quaternions (x, y, z, w), Euler angles in radians and homogeneous matrices (4, 4)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from transforms3d import affines, euler, quaternions

__all__ = ["quaternion_from_euler", "quaternion_from_matrix", "quaternion_matrix", "quaternion_multiply"]

Quaternion = tuple[float, float, float, float]


def quaternion_from_euler(ai: float, aj: float, ak: float, axes: str = "sxyz") -> Quaternion:
    """Return the quaternion of three Euler angles; by default about the static axes x, y and z."""
    return _as_xyzw(euler.euler2quat(ai, aj, ak, axes=axes))


def quaternion_matrix(quaternion: ArrayLike) -> NDArray[np.float64]:
    """Return the rotation matrix (4, 4) of a quaternion of any length; the identity for length zero."""
    return affines.compose(np.zeros(3), quaternions.quat2mat(_as_wxyz(quaternion)), np.ones(3))


def quaternion_from_matrix(matrix: ArrayLike) -> Quaternion:
    """Return the quaternion, with w not negative, of the rotation in an affine transform (4, 4)."""
    return _as_xyzw(quaternions.mat2quat(affines.decompose(matrix)[1]))


def quaternion_multiply(quaternion1: ArrayLike, quaternion0: ArrayLike) -> Quaternion:
    """Return the product: the rotation `quaternion0` followed by `quaternion1`."""
    return _as_xyzw(quaternions.qmult(_as_wxyz(quaternion1), _as_wxyz(quaternion0)))


def _as_wxyz(quaternion: ArrayLike) -> Quaternion:
    """Return a ROS quaternion in the order of transforms3d."""
    x, y, z, w = quaternion
    return w, x, y, z


def _as_xyzw(quaternion: ArrayLike) -> Quaternion:
    """Return a quaternion of transforms3d in the order of ROS."""
    w, x, y, z = quaternion
    return x, y, z, w
