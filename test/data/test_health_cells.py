# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Health on the cells of grids of any size."""

import numpy as np

from aqr_perception.data.health import HEALTH_GRID, SensorHealth
from aqr_perception.data.health_cells import camera_cells, lidar_cells


def test_lidar_health_is_that_of_the_cells_centres() -> None:
    grid = np.add.outer(np.arange(8), 10 * np.arange(8)).astype(np.float32)  # rows y, columns x, cells of 2 m
    health = SensorHealth(grid, 8.0)
    np.testing.assert_allclose(lidar_cells(health, (-8, -8, 8, 8), (8, 8)), grid)
    part = lidar_cells(health, (-4, -2, 4, 2), (2, 4))
    np.testing.assert_allclose(part, grid[3:5, 2:6])
    assert (lidar_cells(SensorHealth(), (-50, -50, 50, 50), (3, 5)) == 1).all()


def test_camera_health_follows_the_crop_of_the_models_image() -> None:
    grid = np.zeros(HEALTH_GRID, np.float32)
    grid[HEALTH_GRID[0] // 2 :] = 1.0  # the lower half is free
    # The model keeps the lower half of a picture that is twice as high as its image.
    found = camera_cells(grid, (280, 160), (280, 80), (4, 7))
    assert found.shape == (4, 7) and (found == 1).all()
    whole = camera_cells(grid, (280, 160), (280, 160), (4, 7))
    assert (whole[:2] == 0).all() and (whole[2:] == 1).all()
