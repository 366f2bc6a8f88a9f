# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Depth of a camera picture, estimated from LiDAR points."""

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import CameraView
from aqr_perception.geometry import transform_points

FARTHEST = 300.0
"""Depth in metres of the sky."""

_COLUMNS = 72
_FEWEST = 60
"""Points in the picture below which its depth is unknown."""
_NEAREST = 0.5
_FADING = 0.75
"""Factor on the inverse depth from row to row above a column's highest point, where only the sky is certain."""


def picture_depth(view: CameraView, points: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    """Return the depth (H, W) of a picture in metres along the optical axis, at most `FARTHEST`; None if unknown.

    The points give the mean inverse depth of cells of 1/72 of the width. Between a column's points, inverse depth is
    interpolated, which is exact on planes; below the lowest it stays, above the highest it falls towards the sky.
    Columns without points take from their neighbours, and cells unlike all around them, too.

    Args:
        view: a camera with its true calibration.
        points: (N, >=3) LiDAR points in the model frame; None without LiDAR.
    """
    if points is None:
        return None
    height, width = view.image.shape[:2]
    in_camera = transform_points(view.extrinsics, points)
    ahead = in_camera[in_camera[:, 2] > _NEAREST]
    pixels = ahead @ view.intrinsics.T
    u, v = pixels[:, 0] / pixels[:, 2], pixels[:, 1] / pixels[:, 2]
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    if inside.sum() < _FEWEST:
        return None
    rows = max(2, round(_COLUMNS * height / width))
    nearness = np.zeros((rows, _COLUMNS))
    cells = (v[inside] * rows / height).astype(int), (u[inside] * _COLUMNS / width).astype(int)
    counts = np.zeros((rows, _COLUMNS))
    np.add.at(nearness, cells, 1.0 / ahead[inside, 2])
    np.add.at(counts, cells, 1.0)
    filled = _filled(nearness / np.maximum(counts, 1.0)).astype(np.float32)
    # Single echoes of rain and dust are no surfaces.
    smooth = cv2.resize(cv2.medianBlur(filled, 5), (width, height), interpolation=cv2.INTER_LINEAR)
    depth: NDArray[np.float32] = (1.0 / np.maximum(smooth, 1.0 / FARTHEST)).astype(np.float32)
    return depth


def _filled(nearness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return inverse depths (rows, columns) without gaps; 0 means unknown before."""
    rows, columns = nearness.shape
    places = np.arange(rows)
    filled = np.zeros_like(nearness)
    known_columns = np.flatnonzero(nearness.any(axis=0))
    for column in known_columns:
        known = np.flatnonzero(nearness[:, column])
        filled[:, column] = np.interp(places, known, nearness[known, column])
        above = places < known[0]
        filled[above, column] *= _FADING ** (known[0] - places[above])
    for row in range(rows):
        filled[row] = np.interp(np.arange(columns), known_columns, filled[row, known_columns])
    return filled
