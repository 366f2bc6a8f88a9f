# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms, pinhole projection and box corners as NumPy arrays."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation, Slerp

_Floats = NDArray[np.floating[Any]]


def rigid_transform(translation: ArrayLike, quaternion_xyzw: ArrayLike) -> NDArray[np.float64]:
    """Return the (4, 4) matrix of a translation (3,) in metres and a quaternion (x, y, z, w), as in geometry_msgs.

    The quaternion need not be normalised.
    """
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(np.asarray(quaternion_xyzw, dtype=np.float64)).as_matrix()
    matrix[:3, 3] = translation
    return matrix


def quaternion_xyzw(transform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation of a (3, 3) or (4, 4) matrix as a unit quaternion (x, y, z, w)."""
    quaternion: NDArray[np.float64] = Rotation.from_matrix(np.asarray(transform, dtype=np.float64)[:3, :3]).as_quat()
    return quaternion


def invert(transform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (4, 4) inverse of a rigid transform, by transposing the rotation."""
    inverse = np.eye(4)
    inverse[:3, :3] = transform[:3, :3].T
    inverse[:3, 3] = -transform[:3, :3].T @ transform[:3, 3]
    return inverse


def interpolate(first: NDArray[np.float64], second: NDArray[np.float64], fraction: float) -> NDArray[np.float64]:
    """Return the (4, 4) transform between two rigid ones; a fraction of 0 gives the first, 1 the second.

    Translation is interpolated linearly and rotation spherically (slerp), as in tf2.
    """
    interpolated = np.eye(4)
    rotations = Rotation.from_matrix(np.stack([first[:3, :3], second[:3, :3]]))
    interpolated[:3, :3] = Slerp([0.0, 1.0], rotations)(fraction).as_matrix()
    interpolated[:3, 3] = (1 - fraction) * first[:3, 3] + fraction * second[:3, 3]
    return interpolated


def transform_points(transform: NDArray[np.float64], points: _Floats) -> NDArray[np.float64]:
    """Return the (N, 3) positions of (N, >=3) points after an affine (4, 4) transform; further columns are ignored."""
    transformed: NDArray[np.float64] = points[:, :3] @ transform[:3, :3].T + transform[:3, 3]
    return transformed


def project(intrinsics: NDArray[np.float64], points: _Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project (N, >=3) points in metres from a camera's optical frame to its image.

    Args:
        intrinsics: (3, 3) pinhole matrix in pixels.

    Returns:
        pixels (N, 2) as (u, v), valid only where the depth is positive, and depths (N,) in metres.
    """
    homogeneous = points[:, :3] @ np.asarray(intrinsics, dtype=np.float64).T
    depths = homogeneous[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return homogeneous[:, :2] / depths[:, None], depths


def box_corners(boxes: _Floats) -> NDArray[np.float64]:
    """Return the (N, 8, 3) corners of (N, >=7) boxes (x, y, z, length, width, height in metres, yaw in radians).

    Corners 0..3 form the bottom face, counter-clockwise as seen from above, starting at the front left; corners 4..7
    are above them. The front face is 0, 3, 7, 4.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    unit = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2
    unit = np.concatenate([np.c_[unit, np.full(4, -0.5)], np.c_[unit, np.full(4, 0.5)]])
    local = unit[None] * boxes[:, None, 3:6]
    cos, sin = np.cos(boxes[:, 6])[:, None], np.sin(boxes[:, 6])[:, None]
    x = local[..., 0] * cos - local[..., 1] * sin
    y = local[..., 0] * sin + local[..., 1] * cos
    corners: NDArray[np.float64] = np.stack([x, y, local[..., 2]], axis=-1) + boxes[:, None, :3]
    return corners
