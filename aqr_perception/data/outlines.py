# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Share of each box's outline inside a camera's image."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import CameraView
from aqr_perception.geometry import box_corners, project, transform_points

_NEAR = 0.1
"""Depth in metres of the near plane, which cuts boxes that extend behind the camera."""
_EDGES = np.array([(i, (i + 1) % 4) for i in range(4)] + [(i + 4, (i + 1) % 4 + 4) for i in range(4)])
_EDGES = np.concatenate((_EDGES, [(i, i + 4) for i in range(4)]))


def outline_shares(boxes: NDArray[Any], views: Sequence[CameraView]) -> NDArray[np.float32]:
    """Return (N, V) in 0..1, the share of each box's outline inside each image; 0 for boxes behind the camera.

    Occlusion is ignored: this is the part of `GroundTruth.visibility` that depends on the images' borders.

    Args:
        boxes: (N, >=7), as `Detections.boxes`.
    """
    shares = np.zeros((len(boxes), len(views)), np.float32)
    all_corners = box_corners(boxes)
    for column, view in enumerate(views):
        corners = transform_points(view.extrinsics, all_corners.reshape(-1, 3)).reshape(-1, 8, 3)
        height, width = view.image.shape[:2]
        pixels, depths = project(view.intrinsics, corners.reshape(-1, 3))
        pixels, near = pixels.reshape(-1, 8, 2), depths.reshape(-1, 8) <= _NEAR
        whole = ~near.any(axis=1)
        inside = whole & np.all((pixels >= 0) & (pixels <= (width, height)), axis=(1, 2))
        outside = np.any(np.all(pixels < 0, axis=1) | np.all(pixels > (width, height), axis=1), axis=1)
        shares[inside, column] = 1.0
        # Only boxes cut by the image's border or the near plane need the exact outline.
        for row in np.flatnonzero(~inside & ~(whole & outside) & ~near.all(axis=1)):
            shares[row, column] = _share(corners[row], view)
    return shares


def _share(corners: NDArray[np.float64], view: CameraView) -> float:
    height, width = view.image.shape[:2]
    pixels, _ = project(view.intrinsics, _in_front(corners))
    outline = cv2.convexHull(pixels.astype(np.float32))[:, 0].astype(np.float64)
    area = _area(outline)
    return _area(_cut(outline, width, height)) / area if area > 0 else 0.0


def _in_front(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners of the part of a box beyond the near plane."""
    starts, ends = corners[_EDGES[:, 0]], corners[_EDGES[:, 1]]
    crossing = (starts[:, 2] > _NEAR) != (ends[:, 2] > _NEAR)
    starts, ends = starts[crossing], ends[crossing]
    along = (_NEAR - starts[:, 2:]) / (ends[:, 2:] - starts[:, 2:])
    return np.concatenate((corners[corners[:, 2] > _NEAR], starts + along * (ends - starts)))


def _cut(polygon: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """Return the part of a convex polygon (K, 2) inside the image (Sutherland and Hodgman, 1974)."""
    for axis, sign, bound in ((0, 1.0, 0.0), (0, -1.0, -width), (1, 1.0, 0.0), (1, -1.0, -height)):
        if len(polygon) == 0:
            break
        inside = sign * polygon[:, axis] - bound
        corners = []
        for index, distance in enumerate(inside):
            previous = inside[index - 1]
            if (distance >= 0) != (previous >= 0):
                along = previous / (previous - distance)
                corners.append(polygon[index - 1] + along * (polygon[index] - polygon[index - 1]))
            if distance >= 0:
                corners.append(polygon[index])
        polygon = np.array(corners).reshape(-1, 2)
    return polygon


def _area(polygon: NDArray[np.float64]) -> float:
    x, y = polygon.T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)
