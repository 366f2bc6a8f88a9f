# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Gaussian windows of queries, and outlines of boxes, in a frame's pictures."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import CameraView, CameraWeightMap, WeightMaps
from aqr_perception.geometry import box_corners, project, transform_points
from aqr_perception.report.report_frame import BEV, Window

_NEAR = 0.3
"""Metres in front of a camera, within which a box has no outline in its picture."""
_EDGES = np.array([(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)])

Line = tuple[float, float, float, float]


def query_windows(
    points: NDArray[np.float32], maps: WeightMaps, cameras: Sequence[CameraView], sigma: float
) -> list[dict[str, Window]]:
    """Return the window of each query (N, 3), metres in the model frame, in each picture that shows it.

    Args:
        maps: the frame's weight maps, whose cells are the unit of `sigma`.
        cameras: the frame's cameras.
        sigma: standard deviation in cells; see `AqrOptions.sigma`.
    """
    windows: list[dict[str, Window]] = [{} for _ in points]
    if maps.bev is not None:
        for found, window in zip(windows, _bev_windows(points, maps, sigma), strict=True):
            if window is not None:
                found[BEV] = window
    for view in cameras:
        weights = maps.cameras.get(view.name)
        if weights is None:
            continue
        for found, window in zip(windows, _camera_windows(points, view, weights, sigma), strict=True):
            if window is not None:
                found[view.name] = window
    return windows


def _bev_windows(points: NDArray[np.float32], maps: WeightMaps, sigma: float) -> list[Window | None]:
    assert maps.bev is not None
    x_min, y_min, x_max, y_max = maps.scene_range or maps.bev_range
    rows, columns = maps.bev.shape
    sigma_x = sigma * (maps.bev_range[2] - maps.bev_range[0]) / columns / (x_max - x_min)
    sigma_y = sigma * (maps.bev_range[3] - maps.bev_range[1]) / rows / (y_max - y_min)
    low, high = np.array(maps.bev_range[:2]), np.array(maps.bev_range[2:])
    inside = np.all((points[:, :2] >= low) & (points[:, :2] < high), axis=1)
    x, y = (points[:, 0] - x_min) / (x_max - x_min), (y_max - points[:, 1]) / (y_max - y_min)
    return [
        Window(float(at_x), float(at_y), sigma_x, sigma_y) if shown else None
        for at_x, at_y, shown in zip(x, y, inside.tolist(), strict=True)
    ]


def _camera_windows(
    points: NDArray[np.float32], view: CameraView, weights: CameraWeightMap, sigma: float
) -> list[Window | None]:
    height, width = view.image.shape[:2]
    pixels, depths = project(view.intrinsics, transform_points(view.extrinsics, np.asarray(points, np.float64)))
    with np.errstate(invalid="ignore"):
        inside = ((pixels >= 0) & (pixels < (width, height))).all(axis=1) & (depths > 0)
    cells_x, cells_y = abs(weights.image_to_map[0, 0]), abs(weights.image_to_map[1, 1])
    spread = sigma / cells_x / width, sigma / cells_y / height
    return [
        Window(float(x / width), float(y / height), *spread) if shown else None
        for (x, y), shown in zip(pixels, inside, strict=True)
    ]


def box_outlines(
    boxes: NDArray[np.float32], cameras: Sequence[CameraView], scene: tuple[float, float, float, float] | None
) -> list[dict[str, list[Line]]]:
    """Return the lines of each box (N, 9) in each picture that shows it, as `ReportDetection.outlines`.

    Args:
        scene: x_min, y_min, x_max, y_max in metres of the bird's-eye view; None: there is none.
    """
    outlines: list[dict[str, list[Line]]] = [{} for _ in boxes]
    corners = box_corners(boxes)
    if scene is not None:
        for found, ground in zip(outlines, corners[:, :4, :2], strict=True):
            found[BEV] = bev_outline(ground, scene)
    for view in cameras:
        height, width = view.image.shape[:2]
        moved = transform_points(view.extrinsics, corners.reshape(-1, 3).astype(np.float64)).reshape(-1, 8, 3)
        for found, box in zip(outlines, moved, strict=True):
            edges = _EDGES[(box[_EDGES, 2] >= _NEAR).all(axis=1)]
            pixels = project(view.intrinsics, box)[0] / (width, height)
            lines = pixels[edges].reshape(-1, 4)
            low, high = np.minimum(lines[:, :2], lines[:, 2:]), np.maximum(lines[:, :2], lines[:, 2:])
            shown = lines[((high >= 0) & (low <= 1)).all(axis=1)].clip(-2, 3)
            if len(shown):
                found[view.name] = [(x1, y1, x2, y2) for x1, y1, x2, y2 in shown.tolist()]
    return outlines


def bev_outline(ground: NDArray[np.floating], scene: tuple[float, float, float, float]) -> list[Line]:
    """Return the four sides of a box in the bird's-eye view from its corners on the ground (4, 2) in metres."""
    x_min, y_min, x_max, y_max = scene
    shares = (np.asarray(ground, np.float64) - (x_min, y_max)) / (x_max - x_min, y_min - y_max)
    sides = np.concatenate([shares, np.roll(shares, -1, axis=0)], axis=1)
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in sides.tolist()]


def by_name(names: Sequence[str], values: Sequence[float]) -> Mapping[str, float]:
    """Return numbers by the names of their sensors."""
    return {name: float(value) for name, value in zip(names, values, strict=True)}
