# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Transfer of sensor health through augmentation.

Corruption precedes augmentation, because a LiDAR's beams and field of view start at its origin, and frozen images come
from a frame without augmentation. The change of the calibration gives the augmentation.
"""

import dataclasses
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.health import HEALTH_GRID, FrameWithHealth
from aqr_perception.frame import LabelledFrame


def transfer_health(corrupted: FrameWithHealth, augmented: LabelledFrame) -> FrameWithHealth:
    """Return an augmented frame with the health of its original frame, moved to the augmented positions.

    Args:
        corrupted: the frame before augmentation.
        augmented: the frame after changes of the images (resize, crop, flip, rotation), given by the intrinsics, and of
            the model frame, given by `model_to_world`.
    """
    source, health = corrupted.labelled, corrupted.health
    motion = np.linalg.inv(augmented.model_to_world) @ source.model_to_world
    source_views = {view.name: view for view in source.frame.cameras}
    cameras = dict(health.cameras)
    for view in augmented.frame.cameras:
        if view.name in cameras and view.name in source_views:
            old = source_views[view.name]
            change = view.intrinsics @ np.linalg.inv(old.intrinsics)
            cameras[view.name] = _picture_health(cameras[view.name], change, old.image.shape[:2], view.image.shape[:2])
    lidar = _lidar_health(health.lidar, health.reach, motion)
    return FrameWithHealth(augmented, dataclasses.replace(health, lidar=lidar, cameras=cameras))


def _lidar_health(lidar: NDArray[np.float32], reach: float, motion: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the (R, R) grid in a model frame that was moved by a (4, 4) transform."""
    onto = np.eye(3)
    onto[:2, :2], onto[:2, 2] = motion[:2, :2], motion[:2, 3]
    scale = len(lidar) / (2 * reach)
    to_cells = np.array([[scale, 0.0, reach * scale], [0.0, scale, reach * scale], [0.0, 0.0, 1.0]])
    return _warped(lidar, to_cells @ onto @ np.linalg.inv(to_cells))


def _picture_health(
    grid: NDArray[np.float32], change: NDArray[np.float64], old: tuple[int, ...], new: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return the grid over an image that a (3, 3) affine maps from another; sizes are height and width in pixels."""
    rows, columns = HEALTH_GRID
    from_cells = np.diag([old[1] / columns, old[0] / rows, 1.0])
    to_cells = np.diag([columns / new[1], rows / new[0], 1.0])
    return _warped(grid, to_cells @ change @ from_cells)


def _warped(grid: NDArray[np.float32], onto: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return a grid moved by a (3, 3) affine of cell coordinates (column, row), cell centres at half-integers."""
    half = np.eye(3)
    half[:2, 2] = 0.5  # OpenCV's cell centres are at integers
    affine = np.linalg.inv(half) @ onto @ half
    moved: NDArray[Any] = cv2.warpAffine(
        grid, affine[:2], grid.shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return moved.clip(0.0, 1.0).astype(np.float32)
