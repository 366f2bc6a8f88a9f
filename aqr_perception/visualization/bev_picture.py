"""Bird's-eye view (BEV) of weight map, points and boxes: +x of the model frame is right, +y is up."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from aqr_perception.frame import Detections, WeightMaps
from aqr_perception.geometry import box_corners
from aqr_perception.visualization.colours import heat_colours, modality_colour
from aqr_perception.visualization.legend import draw_signed_legend

_RING_STEP = 10.0


def bev_picture(
    maps: WeightMaps, points: NDArray[np.float32] | None, detections: Detections, size: int = 800
) -> NDArray[np.uint8]:
    """Return a BGR picture, `size` pixels wide, of the maps' scene.

    Args:
        maps: weight maps; the ground without a BEV map, or outside it, is black. A signed map has diverging colours,
            and a legend if the picture is large enough.
        points: (N, >=2) in metres, model frame.
        detections: boxes are coloured by modality; the line from the centre shows the heading.
    """
    x_min, y_min, x_max, y_max = maps.scene_range or maps.bev_range
    grid = _PixelGrid(x_min, y_max, scale=size / (x_max - x_min))
    height = round((y_max - y_min) * grid.scale)
    picture = np.zeros((height, size, 3), dtype=np.uint8)
    if maps.bev is not None:
        _draw_map(picture, grid, maps.bev, maps.bev_range, maps.signed)
    if points is not None and len(points):
        _draw_points(picture, grid, points)
    _draw_rings(picture, grid, reach=max(x_max, y_max))
    _draw_boxes(picture, grid, detections)
    if maps.signed and maps.bev is not None:
        draw_signed_legend(picture)
    return picture


class _PixelGrid(NamedTuple):
    """Position and scale (pixels per metre) of a picture: its left border is at `x_min`, its top at `y_max`."""

    x_min: float
    y_max: float
    scale: float

    def pixels(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.int32]:
        """Return pixels (..., 2) as (column, row) of positions in metres."""
        columns, rows = (np.asarray(x) - self.x_min) * self.scale, (self.y_max - np.asarray(y)) * self.scale
        pixels: NDArray[np.int32] = np.stack((columns, rows), axis=-1).round().astype(np.int32)
        return pixels


def _draw_map(
    picture: NDArray[np.uint8],
    grid: _PixelGrid,
    bev: NDArray[np.float32],
    bev_range: tuple[float, float, float, float],
    signed: bool,
) -> None:
    """Draw a map at its position; its part outside the picture is cut off."""
    x_min, y_min, x_max, y_max = bev_range
    (left, top), (right, bottom) = grid.pixels([x_min, x_max], [y_max, y_min]).tolist()
    # Rows of the map ascend with y, rows of a picture descend.
    scaled = cv2.resize(bev[::-1], (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    rows = slice(max(top, 0), min(bottom, picture.shape[0]))
    columns = slice(max(left, 0), min(right, picture.shape[1]))
    inside = scaled[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    picture[rows, columns] = heat_colours(inside, signed)


def _draw_points(picture: NDArray[np.uint8], grid: _PixelGrid, points: NDArray[np.float32]) -> None:
    column, row = grid.pixels(points[:, 0], points[:, 1]).T
    inside = (column >= 0) & (column < picture.shape[1]) & (row >= 0) & (row < picture.shape[0])
    picture[row[inside], column[inside]] = (225, 225, 225)


def _draw_rings(picture: NDArray[np.uint8], grid: _PixelGrid, reach: float) -> None:
    """Draw a labelled ring every 10 m around the origin of the model frame."""
    grey = (110, 110, 110)
    column, row = grid.pixels(0.0, 0.0).tolist()
    for distance in np.arange(_RING_STEP, reach, _RING_STEP):
        radius = round(distance * grid.scale)
        cv2.circle(picture, (column, row), radius, grey, 1, cv2.LINE_AA)
        # The dark outline keeps the text readable on points and on bright weights.
        for colour, thickness in (((0, 0, 0), 3), ((200, 200, 200), 1)):
            at = (column + 3, row - radius - 3)
            cv2.putText(picture, f"{distance:.0f} m", at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, thickness, cv2.LINE_AA)
    cv2.drawMarker(picture, (column, row), (255, 255, 255), cv2.MARKER_CROSS, 10, 1)


def _draw_boxes(picture: NDArray[np.uint8], grid: _PixelGrid, detections: Detections) -> None:
    thickness = max(1, round(picture.shape[1] / 600))
    order = np.argsort(detections.scores, kind="stable")  # ascending, to draw the best box on top
    corners = box_corners(detections.boxes[order])[:, :4]
    outlines = grid.pixels(corners[..., 0], corners[..., 1])
    # A dark rim keeps boxes readable on bright weights. All rims come first and therefore cover no box.
    cv2.polylines(picture, list(outlines), True, (0, 0, 0), thickness + 3, cv2.LINE_AA)
    centres = grid.pixels(*detections.boxes[order, :2].T).tolist()
    fronts = outlines[:, [0, 3]].mean(axis=1).round().astype(int).tolist()
    for index, outline, centre, front in zip(order, outlines, centres, fronts, strict=True):
        red, green, blue = modality_colour(detections.lidar_weight[index], detections.camera_weight[index])
        cv2.polylines(picture, [outline], True, (blue, green, red), thickness, cv2.LINE_AA)
        cv2.line(picture, centre, front, (blue, green, red), thickness, cv2.LINE_AA)
