# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Bird's-eye view (BEV) of weights, points and boxes: +x of the model frame is right, +y is up."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from aqr_perception.frame import Detections, WeightMaps
from aqr_perception.geometry import box_corners
from aqr_perception.visualization.colours import heat_colours, modality_colours, trust_balance, trust_colours
from aqr_perception.visualization.legend import Scale, draw_caption, draw_legend, trust_scale, weight_scale
from aqr_perception.visualization.picture_options import DEFAULT, Caption, PictureOptions
from aqr_perception.visualization.weight_field import WeightField, blend, from_map, from_queries, known_weights

POINT_COLOUR, RING_COLOUR = (150, 150, 150), (80, 80, 80)
"""BGR of LiDAR points and rings: darker than objects."""

_RING_STEP = 10.0
_FIELD_STEP = 4
"""Pixels between two places of the field of weights."""


def bev_picture(
    maps: WeightMaps,
    points: NDArray[np.float32] | None,
    detections: Detections,
    size: int = 800,
    options: PictureOptions = DEFAULT,
    caption: Caption | None = None,
) -> NDArray[np.uint8]:
    """Return a BGR picture, `size` pixels wide, of the maps' scene.

    The ground is black where no query is. A picture with weights has a legend, if it is large enough.

    Args:
        maps: weights; the view of weights needs a BEV map, the view of trust needs queries.
        points: (N, >=2) in metres, model frame.
        detections: boxes are coloured by modality; the line from the centre shows the heading.
        caption: what to write of the frame; None for a picture without words about it.
    """
    x_min, y_min, x_max, y_max = maps.scene_range or maps.bev_range
    grid = _PixelGrid(x_min, y_max, scale=size / (x_max - x_min))
    picture = np.zeros((round((y_max - y_min) * grid.scale), size, 3), dtype=np.uint8)
    trust = options.view == "trust"
    shown = _draw_trust(picture, grid, maps) if trust else _draw_weights(picture, grid, maps, options.by_score)
    if points is not None and len(points):
        _draw_points(picture, grid, points)
    _draw_rings(picture, grid, reach=max(x_max, y_max))
    _draw_boxes(picture, grid, detections, filled=trust)
    if shown or caption is not None:
        by_score = maps.queries is not None and (trust or options.by_score)
        note = "faint: low score; black: no query" if by_score else "black: no query"
        draw_legend(picture, _scales(maps, trust, shown), note if shown else "")
    if caption is not None:
        draw_caption(picture, _title(maps, trust, shown), caption.lines(), alarm=bool(caption.missing))
    return picture


def _title(maps: WeightMaps, trust: bool, shown: bool) -> str:
    if trust:
        return "from above: LiDAR or cameras?" if shown else "from above: no weights"
    if not shown:
        return "from above: no weights of the LiDAR"
    return "from above: " + ("attention on the LiDAR" if maps.source == "attention" else "weight of the LiDAR")


def _scales(maps: WeightMaps, trust: bool, shown: bool) -> Sequence[Scale]:
    """Return the scales of all colours in the picture."""
    if trust or not shown:
        return [trust_scale("trust in LiDAR or cameras" if trust else "boxes: trust in LiDAR or cameras")]
    title = "ground: LiDAR's share of attention" if maps.source == "attention" else "ground: weight of the LiDAR"
    return [weight_scale(title, maps.signed), trust_scale("boxes: trust in LiDAR or cameras")]


class _PixelGrid(NamedTuple):
    """Position and scale (pixels per metre) of a picture: its left border is at `x_min`, its top at `y_max`."""

    x_min: float
    y_max: float
    scale: float

    def places(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """Return places (..., 2) as (column, row) of positions in metres."""
        return np.stack(((np.asarray(x) - self.x_min) * self.scale, (self.y_max - np.asarray(y)) * self.scale), axis=-1)

    def pixels(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.int32]:
        """Return pixels (..., 2) as (column, row) of positions in metres."""
        pixels: NDArray[np.int32] = self.places(x, y).round().astype(np.int32)
        return pixels


def _draw_weights(picture: NDArray[np.uint8], grid: _PixelGrid, maps: WeightMaps, by_score: bool) -> bool:
    """Draw the LiDAR's weights, if there are any; return whether there are."""
    if maps.bev is None:
        return False
    if by_score and maps.queries is not None:
        field = _query_field(picture, grid, maps, known_weights(maps.queries))
        blend(picture, heat_colours(field.values, maps.signed), field.visibility, _FIELD_STEP)
    else:
        _draw_map(picture, grid, maps.bev, maps.bev_range, maps.signed)
    return True


def _draw_trust(picture: NDArray[np.uint8], grid: _PixelGrid, maps: WeightMaps) -> bool:
    """Draw the LiDAR against the cameras, if the queries are known; return whether they are."""
    queries = maps.queries
    if queries is None:
        return False
    field = _query_field(picture, grid, maps, trust_balance(queries.lidar_weight, queries.camera_weight))
    blend(picture, trust_colours(field.values), field.visibility, _FIELD_STEP)
    return True


def _query_field(
    picture: NDArray[np.uint8], grid: _PixelGrid, maps: WeightMaps, values: NDArray[np.float32]
) -> WeightField:
    assert maps.queries is not None  # checked by the callers
    pixels = grid.places(maps.queries.positions[:, 0], maps.queries.positions[:, 1]) - 0.5  # centres are at integers
    sigma = (maps.queries.sigma[0] * grid.scale, maps.queries.sigma[1] * grid.scale)
    return from_queries(maps.queries, values, pixels, sigma, (picture.shape[1], picture.shape[0]), _FIELD_STEP)


def _draw_map(
    picture: NDArray[np.uint8],
    grid: _PixelGrid,
    bev: NDArray[np.float32],
    bev_range: tuple[float, float, float, float],
    signed: bool,
) -> None:
    """Draw a published map at its position; its part outside the picture is cut off."""
    x_min, y_min, x_max, y_max = bev_range
    (left, top), (right, bottom) = grid.pixels([x_min, x_max], [y_max, y_min]).tolist()
    # Rows of the map ascend with y, rows of a picture descend.
    scaled = cv2.resize(bev[::-1], (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    rows = slice(max(top, 0), min(bottom, picture.shape[0]))
    columns = slice(max(left, 0), min(right, picture.shape[1]))
    inside = scaled[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    field = from_map(inside.astype(np.float32, copy=False), signed)
    blend(picture[rows, columns], heat_colours(field.values, signed), field.visibility, 1)


def _draw_points(picture: NDArray[np.uint8], grid: _PixelGrid, points: NDArray[np.float32]) -> None:
    column, row = grid.pixels(points[:, 0], points[:, 1]).T
    inside = (column >= 0) & (column < picture.shape[1]) & (row >= 0) & (row < picture.shape[0])
    picture[row[inside], column[inside]] = POINT_COLOUR


def _draw_rings(picture: NDArray[np.uint8], grid: _PixelGrid, reach: float) -> None:
    """Draw a labelled ring every 10 m around the origin of the model frame."""
    column, row = grid.pixels(0.0, 0.0).tolist()
    for distance in np.arange(_RING_STEP, reach, _RING_STEP):
        radius = round(distance * grid.scale)
        cv2.circle(picture, (column, row), radius, RING_COLOUR, 1, cv2.LINE_AA)
        if row - radius < 15:
            continue  # the label would be cut off
        # The dark outline keeps the text readable on points and on bright weights.
        for colour, thickness in (((0, 0, 0), 3), ((180, 180, 180), 1)):
            at = (column + 3, row - radius - 3)
            cv2.putText(picture, f"{distance:.0f} m", at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, thickness, cv2.LINE_AA)
    cv2.drawMarker(picture, (column, row), (255, 255, 255), cv2.MARKER_CROSS, 10, 1)


def _draw_boxes(picture: NDArray[np.uint8], grid: _PixelGrid, detections: Detections, filled: bool) -> None:
    thickness = max(1, round(picture.shape[1] / 600))
    order = np.argsort(detections.scores, kind="stable")  # ascending, to draw the best box on top
    corners = box_corners(detections.boxes[order])[:, :4]
    outlines = grid.pixels(corners[..., 0], corners[..., 1])
    # A dark rim keeps boxes readable on bright weights. All rims come first and therefore cover no box.
    cv2.polylines(picture, list(outlines), True, (0, 0, 0), thickness + 3, cv2.LINE_AA)
    centres = grid.pixels(*detections.boxes[order, :2].T).tolist()
    fronts = outlines[:, [0, 3]].mean(axis=1).round().astype(int).tolist()
    colours = modality_colours(detections.lidar_weight[order], detections.camera_weight[order])
    for colour, outline, centre, front in zip(colours, outlines, centres, fronts, strict=True):
        if filled:
            cv2.fillPoly(picture, [outline], colour)
        lines = (0, 0, 0) if filled else colour  # also between boxes that overlap
        cv2.polylines(picture, [outline], True, lines, thickness, cv2.LINE_AA)
        cv2.line(picture, centre, front, lines, thickness, cv2.LINE_AA)
