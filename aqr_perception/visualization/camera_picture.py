"""Camera image with its weight map and the boxes of the detections."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import CameraView, CameraWeightMap, Detections
from aqr_perception.geometry import box_corners, project, transform_points
from aqr_perception.visualization.colours import MAP_LIMIT, heat_colours, modality_colour
from aqr_perception.visualization.legend import Rectangle, draw_signed_legend

Line = Sequence[Sequence[int]]
"""Both ends of a line in pixels, as (column, row)."""

_EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
_FRONT_CROSS = ((0, 7), (3, 4))
"""Diagonals of the front face, which show the heading."""
_LINES = np.array(_EDGES + _FRONT_CROSS)
"""(L, 2) corners at the ends of a box's lines, in the order of drawing."""

_NEAR_PLANE = 0.3
_BAND = 64
"""Rows of a picture that are blended at once."""
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
    order = np.argsort(detections.scores, kind="stable")  # ascending, to draw the best box on top
    for index, lines in _visible_lines(view, detections.boxes[order]):
        detection = order[index]
        red, green, blue = modality_colour(detections.lidar_weight[detection], detections.camera_weight[detection])
        drawn = [_draw_line(picture, line, (blue, green, red), thickness) for line in lines]
        ends = [end for line in drawn if line is not None for end in line]
        if ends:
            outlines.append((detection, min(ends, key=lambda pixel: pixel[1]), (blue, green, red)))
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
    values: NDArray[Any] = cv2.warpAffine(
        weights.values,
        to_map,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )
    picture = np.empty_like(image)
    for top in range(0, height, _BAND):  # what is computed of a band stays in the processor's cache
        band = slice(top, top + _BAND)
        _blend(image[band], values[band], signed, picture[band])
    return picture


def _blend(image: NDArray[np.uint8], values: NDArray[np.float32], signed: bool, blended: NDArray[np.uint8]) -> None:
    """Fill (H, W, 3) pixels with an image under a heat map of (H, W) values."""
    # Values beyond the limit, from models with a higher one, look like the limit.
    opacity = np.minimum(np.abs(values) * np.float32(_LARGEST_OPACITY / MAP_LIMIT), np.float32(_LARGEST_OPACITY))
    # The dark middle of the signed colours would hide the image. Neutral is transparent here, and the sign is the hue.
    colours = heat_colours(np.copysign(np.float32(MAP_LIMIT), values) if signed else values, signed)
    cv2.blendLinear(image, colours, 1 - opacity, opacity, blended)


def _visible_lines(view: CameraView, boxes: NDArray[np.float32]) -> Iterator[tuple[int, list[Line]]]:
    """Yield, for each box of which a part may be in the picture, its index and its lines in order, in pixels.

    Lines are clipped at the near plane, but not at the picture's borders. Lines outside a border are left out.
    """
    corners = transform_points(view.extrinsics, box_corners(boxes).reshape(-1, 3)).reshape(-1, 8, 3)
    start, end = corners[:, _LINES[:, 0]], corners[:, _LINES[:, 1]]
    ahead = np.maximum(start[..., 2], end[..., 2]) >= _NEAR_PLANE
    owner = np.nonzero(ahead)[0]
    start, end = start[ahead], end[ahead]
    cut = np.minimum(start[:, 2], end[:, 2]) < _NEAR_PLANE
    swapped = (cut & (start[:, 2] < end[:, 2]))[:, None]
    far, near = np.where(swapped, end, start), np.where(swapped, start, end)
    near[cut] = (far + (near - far) * (far[:, 2:] - _NEAR_PLANE) / (far - near)[:, 2:].clip(1e-12))[cut]
    pixels = np.stack([_rounded_pixels(view, points) for points in (far, near)], axis=1)
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    height, width = view.image.shape[:2]
    inside = ((high >= 0) & (low < (width, height))).all(axis=1)
    owner, lines = owner[inside], pixels[inside].tolist()
    for index, begin, stop in _runs(owner):
        yield index, lines[begin:stop]


def _rounded_pixels(view: CameraView, points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the (N, 2) pixels of points in front of the camera, (N, 3) in its frame."""
    pixels: NDArray[np.int64] = project(view.intrinsics, points)[0].clip(-1e6, 1e6).round().astype(np.int64)
    return pixels


def _runs(values: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Yield each run of equal values: the value, the run's first index, and the index after its last."""
    borders = [0, *(np.nonzero(np.diff(values))[0] + 1).tolist(), len(values)]
    for begin, stop in itertools.pairwise(borders):
        if begin < stop:
            yield int(values[begin]), begin, stop


def _draw_line(picture: NDArray[np.uint8], line: Line, colour: tuple[int, int, int], thickness: int) -> Line | None:
    """Draw a line, clipped at the picture's borders; return its ends, None if it is outside."""
    height, width = picture.shape[:2]
    inside, start, end = cv2.clipLine((0, 0, width, height), *line)
    if not inside:
        return None
    cv2.line(picture, start, end, colour, thickness, cv2.LINE_AA)
    return start, end


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
