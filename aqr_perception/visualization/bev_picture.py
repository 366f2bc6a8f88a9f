"""The scene from above: weight map, points and boxes. +x of the model frame is right, +y is up."""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from aqr_perception.frame import Detections, WeightMaps
from aqr_perception.geometry import box_corners
from aqr_perception.visualization.colours import coloured, modality_colour

_RING_STEP = 10.0


def bev_picture(
    maps: WeightMaps, points: NDArray[np.float32] | None, detections: Detections, size: int = 800
) -> NDArray[np.uint8]:
    """Return a BGR picture `size` pixels wide of the range of the maps.

    Args:
        maps: the weights; without a BEV map the ground stays black.
        points: (N, >=2) in metres, model frame.
        detections: boxes are coloured by modality; the line from the centre is the heading.
    """
    x_min, y_min, x_max, y_max = maps.bev_range
    scale = size / (x_max - x_min)
    height = round((y_max - y_min) * scale)
    if maps.bev is None:
        picture = np.zeros((height, size, 3), dtype=np.uint8)
    else:
        # Rows of the map ascend with y, rows of a picture descend.
        picture = coloured(cv2.resize(maps.bev[::-1], (size, height), interpolation=cv2.INTER_LINEAR))

    def pixel(x: ArrayLike, y: ArrayLike) -> NDArray[np.int32]:
        return (
            np.stack(((np.asarray(x) - x_min) * scale, (y_max - np.asarray(y)) * scale), axis=-1)
            .round()
            .astype(np.int32)
        )

    if points is not None and len(points):
        column, row = pixel(points[:, 0], points[:, 1]).T
        seen = (column >= 0) & (column < size) & (row >= 0) & (row < height)
        picture[row[seen], column[seen]] = (225, 225, 225)
    _draw_rings(picture, tuple(pixel(0.0, 0.0).tolist()), scale, max(x_max, y_max))
    thickness = max(1, round(size / 600))
    order = np.argsort(detections.scores, kind="stable")  # the best last, on top
    corners = box_corners(detections.boxes[order])[:, :4]
    outlines = pixel(corners[..., 0], corners[..., 1])
    # A dark rim keeps boxes legible on bright weights; all rims first, that none covers a neighbour's colour.
    cv2.polylines(picture, list(outlines), True, (0, 0, 0), thickness + 3, cv2.LINE_AA)
    for index, outline in zip(order, outlines, strict=True):
        red, green, blue = modality_colour(detections.lidar_weight[index], detections.camera_weight[index])
        cv2.polylines(picture, [outline], True, (blue, green, red), thickness, cv2.LINE_AA)
        centre, front = pixel(*detections.boxes[index, :2]), outline[[0, 3]].mean(axis=0).round().astype(int)
        cv2.line(picture, centre.tolist(), front.tolist(), (blue, green, red), thickness, cv2.LINE_AA)
    return picture


def _draw_rings(picture: NDArray[np.uint8], centre: tuple[int, int], scale: float, reach: float) -> None:
    """Rings every 10 m around the sensor, labelled."""
    grey = (110, 110, 110)
    for distance in np.arange(_RING_STEP, reach, _RING_STEP):
        cv2.circle(picture, centre, round(distance * scale), grey, 1, cv2.LINE_AA)
        at = (centre[0] + 3, centre[1] - round(distance * scale) - 3)
        for colour, thickness in (((0, 0, 0), 3), ((200, 200, 200), 1)):  # legible on points, weights and nothing
            text = f"{distance:.0f} m"
            cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, thickness, cv2.LINE_AA)
    cv2.drawMarker(picture, centre, (255, 255, 255), cv2.MARKER_CROSS, 10, 1)
