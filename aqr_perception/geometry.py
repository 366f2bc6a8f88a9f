"""Rigid transforms, pinhole projection and box corners, on NumPy arrays."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation, Slerp


def rigid_transform(translation: ArrayLike, quaternion_xyzw: ArrayLike) -> NDArray[np.float64]:
    """Return the (4, 4) matrix of a translation in metres and a quaternion (x, y, z, w), as geometry_msgs orders it."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(np.asarray(quaternion_xyzw, dtype=np.float64)).as_matrix()
    matrix[:3, 3] = translation
    return matrix


def quaternion_xyzw(transform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation of a (3, 3) or (4, 4) matrix as a unit quaternion (x, y, z, w)."""
    return Rotation.from_matrix(np.asarray(transform, dtype=np.float64)[:3, :3]).as_quat()


def invert(transform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the inverse of a rigid (4, 4) transform."""
    inverse = np.eye(4)
    inverse[:3, :3] = transform[:3, :3].T
    inverse[:3, 3] = -transform[:3, :3].T @ transform[:3, 3]
    return inverse


def interpolate(first: NDArray[np.float64], second: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Return the rigid (4, 4) transform between two: the first where share is 0, the second where it is 1.

    Positions move on a line, orientations by the shortest turn at constant speed (slerp), as tf2 interpolates.
    """
    between = np.eye(4)
    turns = Rotation.from_matrix(np.stack([first[:3, :3], second[:3, :3]]))
    between[:3, :3] = Slerp([0.0, 1.0], turns)(share).as_matrix()
    between[:3, 3] = (1 - share) * first[:3, 3] + share * second[:3, 3]
    return between


def transform_points(transform: NDArray[np.float64], points: NDArray) -> NDArray[np.float64]:
    """Return (N, 3) points moved by a (4, 4) transform."""
    return points[:, :3] @ transform[:3, :3].T + transform[:3, 3]


def project(intrinsics: NDArray[np.float64], points: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project (N, 3) points in a camera's optical frame.

    Returns:
        pixels (N, 2) as (u, v), meaningful only where the depth is positive, and depths (N,) in metres.
    """
    homogeneous = points[:, :3] @ np.asarray(intrinsics, dtype=np.float64).T
    depths = homogeneous[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return homogeneous[:, :2] / depths[:, None], depths


def box_corners(boxes: NDArray) -> NDArray[np.float64]:
    """Return the (N, 8, 3) corners of (N, >=7) boxes (x, y, z, length, width, height, yaw).

    Corners 0..3 are the bottom, counter-clockwise seen from above and starting front left; 4..7 lie above them. The
    front face is 0, 3, 7, 4.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    unit = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2
    unit = np.concatenate([np.c_[unit, np.full(4, -0.5)], np.c_[unit, np.full(4, 0.5)]])
    local = unit[None] * boxes[:, None, 3:6]
    cos, sin = np.cos(boxes[:, 6])[:, None], np.sin(boxes[:, 6])[:, None]
    x = local[..., 0] * cos - local[..., 1] * sin
    y = local[..., 0] * sin + local[..., 1] * cos
    return np.stack([x, y, local[..., 2]], axis=-1) + boxes[:, None, :3]
