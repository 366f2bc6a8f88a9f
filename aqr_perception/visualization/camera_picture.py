"""Camera image with its weight map and the boxes of the detections."""

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import CameraView, CameraWeightMap, Detections
from aqr_perception.geometry import box_corners, transform_points
from aqr_perception.visualization.colours import MAP_LIMIT, heat_colours, modality_colour
from aqr_perception.visualization.legend import Rectangle, draw_signed_legend

_EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
_FRONT_CROSS = ((0, 7), (3, 4))
"""Diagonals of the front face, which show the heading."""

_NEAR_PLANE = 0.3
_LARGEST_OPACITY = 0.6
"""Opacity of the heat map for weights of `MAP_LIMIT` and more, of either sign."""


def camera_picture(
    view: CameraView, weights: CameraWeightMap | None, detections: Detections, signed: bool = False
) -> NDArray[np.uint8]:
    """Return a view's image, (H, W, 3) BGR, with heat map and boxes.

    Boxes are coloured by modality. Each has a label with class and score, unless it would cover the legend or the label
    of a detection with a higher score.

    Args:
        signed: whether weights may be negative; then the heat map has diverging colours, and a legend if the picture is
            large enough.
    """
    picture = view.image.copy() if weights is None else _with_heat_map(view.image, weights, signed)
    thickness = max(1, round(picture.shape[1] / 800))
    outlines = []
    for index in np.argsort(detections.scores, kind="stable"):  # ascending, to draw the best box on top
        red, green, blue = modality_colour(detections.lidar_weight[index], detections.camera_weight[index])
        corners = transform_points(view.extrinsics, box_corners(detections.boxes[index : index + 1])[0])
        lines = [
            _draw_edge(picture, view.intrinsics, corners[a], corners[b], (blue, green, red), thickness)
            for a, b in (*_EDGES, *_FRONT_CROSS)
        ]
        ends = [end for line in lines if line is not None for end in line]
        if ends:
            outlines.append((index, min(ends, key=lambda pixel: pixel[1]), (blue, green, red)))
    legend = draw_signed_legend(picture) if signed and weights is not None else None
    covered = [] if legend is None else [legend]
    for index, top, colour in reversed(outlines):  # best first: a label never covers a better one
        text = f"{detections.classes[detections.labels[index]]} {detections.scores[index]:.2f}"
        _label(picture, text, top, colour, thickness, covered)
    return picture


def _with_heat_map(image: NDArray[np.uint8], weights: CameraWeightMap, signed: bool) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    # Cell centres are at half-integers in map coordinates, but at integers for warpAffine.
    to_map = weights.image_to_map[:2].copy()
    to_map[:, 2] -= 0.5
    values = cv2.warpAffine(
        weights.values,
        to_map,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )
    # Values beyond the limit, from models with a higher one, look like the limit.
    opacity = np.minimum(np.abs(values) * np.float32(_LARGEST_OPACITY / MAP_LIMIT), np.float32(_LARGEST_OPACITY))
    # The dark middle of the signed colours would hide the image. Neutral is transparent here, and the sign is the hue.
    colours = heat_colours(np.copysign(np.float32(MAP_LIMIT), values) if signed else values, signed)
    return cv2.blendLinear(image, colours, 1 - opacity, opacity).astype(np.uint8, copy=False)


def _draw_edge(
    picture: NDArray[np.uint8],
    intrinsics: NDArray[np.float64],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    colour: tuple[int, int, int],
    thickness: int,
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Draw a line between two points of the camera frame, clipped at the near plane and at the picture's borders.

    Returns:
        the pixels of its ends; None if it is not visible.
    """
    if max(start[2], end[2]) < _NEAR_PLANE:
        return None
    if min(start[2], end[2]) < _NEAR_PLANE:
        near, far = (start, end) if start[2] < end[2] else (end, start)
        start, end = far, far + (near - far) * (far[2] - _NEAR_PLANE) / (far[2] - near[2])
    ends = [intrinsics @ point for point in (start, end)]
    first, second = ((point[:2] / point[2]).clip(-1e6, 1e6).round().astype(int).tolist() for point in ends)
    height, width = picture.shape[:2]
    inside, clipped_first, clipped_second = cv2.clipLine((0, 0, width, height), first, second)
    if not inside:
        return None
    cv2.line(picture, clipped_first, clipped_second, colour, thickness, cv2.LINE_AA)
    return (clipped_first[0], clipped_first[1]), (clipped_second[0], clipped_second[1])


def _label(
    picture: NDArray[np.uint8],
    text: str,
    at: tuple[int, int],
    colour: tuple[int, int, int],
    thickness: int,
    covered: list[Rectangle],
) -> None:
    """Write a text above a pixel and append its rectangle to `covered`, unless it would overlap one of them."""
    scale = 0.45 * max(1.0, picture.shape[1] / 1000)
    (width, height), baseline = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    x = int(np.clip(at[0] - width // 2, 0, max(picture.shape[1] - width, 0)))
    y = int(np.clip(at[1] - baseline, height, picture.shape[0] - baseline))
    left, top, right, bottom = place = (x - 2, y - height - 2, x + width + 2, y + baseline)
    if any(left <= other[2] and other[0] <= right and top <= other[3] and other[1] <= bottom for other in covered):
        return
    covered.append(place)
    cv2.rectangle(picture, (left, top), (right, bottom), colour, cv2.FILLED)
    cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), thickness, cv2.LINE_AA)
