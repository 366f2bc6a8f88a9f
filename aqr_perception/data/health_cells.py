# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sensor health on the cells of a model's grids: BEV features, image features, weight maps."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.health import HEALTH_GRID, SensorHealth
from aqr_perception.models.preprocessing import image_to_model


def lidar_cells(
    health: SensorHealth, bev_range: tuple[float, float, float, float], cells: tuple[int, int]
) -> NDArray[np.float32]:
    """Return the LiDAR's health at the centres of BEV cells (rows y, columns x), interpolated bilinearly.

    Args:
        health: see `SensorHealth`.
        bev_range: see `Preset.bev_range`.
        cells: rows and columns of the grid over this range.
    """
    x_min, y_min, x_max, y_max = bev_range
    scale = len(health.lidar) / (2 * health.reach)

    def places(start: float, end: float, count: int) -> NDArray[np.float32]:
        centres = np.linspace(start, end, count, endpoint=False) + (end - start) / count / 2
        return ((centres + health.reach) * scale - 0.5).astype(np.float32)

    columns, rows = np.meshgrid(places(x_min, x_max, cells[1]), places(y_min, y_max, cells[0]))
    mapped: NDArray[Any] = cv2.remap(health.lidar, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return mapped


def camera_cells(
    health: NDArray[np.float32], picture: tuple[int, int], model: tuple[int, int], cells: tuple[int, int]
) -> NDArray[np.float32]:
    """Return a camera's health at the centres of cells over the model's image, interpolated bilinearly.

    Args:
        health: `HEALTH_GRID` over the camera image, of which the model's image is a part.
        picture: width and height of the camera image in pixels.
        model: width and height of the model's image in pixels.
        cells: rows and columns of the grid over the model's image.
    """
    affine = image_to_model(picture, model)
    to_grid = np.diag([HEALTH_GRID[1] / picture[0], HEALTH_GRID[0] / picture[1], 1.0])
    cell = np.diag([model[0] / cells[1], model[1] / cells[0], 1.0])
    onto = _pixel_shift(-0.5) @ to_grid @ np.linalg.inv(affine) @ cell @ _pixel_shift(0.5)
    warped: NDArray[Any] = cv2.warpAffine(
        health,
        onto[:2],
        cells[::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return warped


def _pixel_shift(step: float) -> NDArray[np.float64]:
    """Return a (3, 3) shift in x and y; OpenCV's pixel centres are at integers, ours at half-integers."""
    affine = np.eye(3)
    affine[:2, 2] = step
    return affine
