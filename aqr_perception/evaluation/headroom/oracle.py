# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The oracle: what it removes of a failing frame's tokens, because it knows the health of every sensor everywhere."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.health import BROKEN, HEALTH_GRID, SensorHealth
from aqr_perception.data.health_cells import camera_cells, lidar_cells
from aqr_perception.detector import Detector
from aqr_perception.frame import Frame
from aqr_perception.frame_features import FrameFeatures
from aqr_perception.models.removed_tokens import TokenMask


@dataclass(frozen=True)
class Broken:
    """What is broken in a frame, of the sensors that it has.

    Attributes:
        lidar: whether the LiDAR is broken somewhere.
        cameras: names of the cameras that are broken somewhere.
    """

    lidar: bool = False
    cameras: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.lidar or bool(self.cameras)


def broken_tokens(
    detector: Detector, features: FrameFeatures, health: SensorHealth, threshold: float = BROKEN
) -> TokenMask:
    """Return the cells of a frame's features whose centre has a health of at most `threshold`.

    Missing sensors have no cells. Sensors that the model does not use have none, either.
    """
    preset, maps, frame = detector.model.preset, features.maps, features.frame
    lidar = None
    if maps.bev is not None:
        grid = (int(maps.bev.shape[-2]), int(maps.bev.shape[-1]))
        lidar = lidar_cells(health, preset.bev_range, grid) <= threshold
    cameras = {}
    if maps.image is not None:
        grid = (int(maps.image.shape[-2]), int(maps.image.shape[-1]))
        for view in frame.cameras:
            if view.name in health.cameras:
                picture = (view.image.shape[1], view.image.shape[0])
                cells = camera_cells(health.cameras[view.name], picture, detector.image_size, grid)
                cameras[view.name] = cells <= threshold
    return TokenMask(lidar, cameras)


def broken_sensors(mask: TokenMask) -> Broken:
    """Return the sensors of which a mask removes a cell."""
    cameras = tuple(name for name, cells in mask.cameras.items() if cells.any())
    return Broken(mask.lidar is not None and bool(mask.lidar.any()), cameras)


def removed_share(mask: TokenMask, features: FrameFeatures) -> float:
    """Return the share of a frame's tokens that a mask removes, 0..1."""
    maps, cells = features.maps, 0
    if maps.bev is not None:
        cells += maps.bev.shape[-2] * maps.bev.shape[-1]
    if maps.image is not None:
        cells += maps.image.shape[1] * maps.image.shape[-2] * maps.image.shape[-1]
    removed = sum(int(part.sum()) for part in (*mask.cameras.values(), *(() if mask.lidar is None else (mask.lidar,))))
    return removed / cells if cells else 0.0


def lidar_health_at(health: SensorHealth, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the LiDAR's health (N,) at points (N, >=2) in metres, model frame; outside its grid, that of the edge."""
    scale = len(health.lidar) / (2 * health.reach)
    cells = np.floor((points[:, :2] + health.reach) * scale).astype(np.int64).clip(0, len(health.lidar) - 1)
    found: NDArray[np.float32] = health.lidar[cells[:, 1], cells[:, 0]]
    return found


def camera_health_at(
    health: SensorHealth, frame: Frame, camera: int, points: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return a camera's health (N,) at the pixels of points (N, 3) in metres, model frame; NaN where it sees none."""
    view = frame.cameras[camera]
    grid = health.cameras.get(view.name, np.ones(HEALTH_GRID, np.float32))
    x, y, depth = (points.astype(np.float64) @ view.extrinsics[:3, :3].T + view.extrinsics[:3, 3]).T
    ahead = depth > 1e-5
    pixels = np.stack([x, y, depth], axis=-1) @ view.intrinsics.T
    place = pixels[:, :2] / np.where(ahead, depth, 1.0)[:, None]
    height, width = view.image.shape[:2]
    inside = ahead & (place >= 0).all(1) & (place[:, 0] < width) & (place[:, 1] < height)
    # Far outside the image, numbers would overflow those of cells.
    cells = np.floor(np.where(inside[:, None], place, 0.0) * np.array([grid.shape[1] / width, grid.shape[0] / height]))
    column, row = cells.astype(np.int64).T
    found: NDArray[np.float32] = np.where(inside, grid[row, column], np.nan).astype(np.float32)
    return found
