# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Estimation of the ground below a vehicle from a LiDAR sweep."""

import numpy as np
from numpy.typing import NDArray

_NEAREST, _FURTHEST = 2.0, 25.0
"""Horizontal distances in metres between which the ground is searched: outside the vehicle, and still flat."""
_CELL = 1.0
_TRIALS = 100
_STEEPEST = np.cos(np.radians(10.0))
_THICKNESS = 0.12
"""Largest distance in metres of the ground from its plane."""
_FEWEST_CELLS = 30
_SMALLEST_SHARE = 0.35
_LARGEST_SHARE_BELOW = 0.1


def ground_height(points: NDArray[np.float32]) -> float | None:
    """Return the height in metres of a frame's origin above the ground; None if the points show no clear ground.

    The plane that holds most of the lowest points of 1 m cells (RANSAC, Fischler and Bolles 1981) is the ground, if it
    is nearly level and hardly any cell is below it.

    Args:
        points: (N, >=3) x, y, z in metres, z up.
    """
    lowest = _lowest_points(points)
    if len(lowest) < _FEWEST_CELLS:
        return None
    rng = np.random.default_rng(0)
    corners = lowest[np.array([rng.choice(len(lowest), 3, replace=False) for _ in range(_TRIALS)])]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    level = np.abs(normals[:, 2]) > _STEEPEST * np.maximum(lengths, 1e-9)
    if not level.any():
        return None
    normals, corners = normals[level] / normals[level][:, 2:], corners[level]
    distances = (lowest[None] - corners[:, :1]) @ normals[:, :, None]  # vertical, (planes, cells, 1)
    inside = np.abs(distances[..., 0]) < _THICKNESS
    on_ground = inside[inside.sum(axis=1).argmax()]
    for _ in range(2):
        flat = np.c_[lowest[:, :2], np.ones(len(lowest))]
        plane, *_ = np.linalg.lstsq(flat[on_ground], lowest[on_ground, 2], rcond=None)
        above = lowest[:, 2] - flat @ plane
        on_ground = np.abs(above) < _THICKNESS
        if on_ground.sum() < _FEWEST_CELLS:
            return None
    if on_ground.mean() < _SMALLEST_SHARE or (above < -3 * _THICKNESS).mean() > _LARGEST_SHARE_BELOW:
        return None
    return float(-plane[2] / np.sqrt(plane[0] ** 2 + plane[1] ** 2 + 1.0))


def _lowest_points(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return (M, 3), the lowest point of each cell of the ground's surroundings."""
    distance = np.hypot(points[:, 0], points[:, 1])
    near = points[(distance > _NEAREST) & (distance < _FURTHEST), :3].astype(np.float64)
    cells = np.floor((near[:, :2] + _FURTHEST) / _CELL).astype(np.int64)
    keys = cells[:, 0] * int(2 * _FURTHEST / _CELL + 1) + cells[:, 1]
    order = np.lexsort((near[:, 2], keys))
    first = np.flatnonzero(np.diff(keys[order], prepend=-1))
    return near[order[first]]
