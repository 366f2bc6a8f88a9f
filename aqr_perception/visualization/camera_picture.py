# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Camera image with weights and the boxes of the detections."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import CameraView, CameraWeightMap, Detections
from aqr_perception.geometry import box_corners, project, transform_points
from aqr_perception.visualization.colours import heat_colours, modality_colours, trust_balance, trust_colours
from aqr_perception.visualization.legend import Rectangle, Scale, draw_caption, draw_legend, trust_scale, weight_scale
from aqr_perception.visualization.picture_options import DEFAULT, Caption, PictureOptions
from aqr_perception.visualization.weight_field import WeightField, blend, from_map, from_queries

Line = Sequence[Sequence[int]]
"""Both ends of a line in pixels, as (column, row)."""

_EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
_FRONT_CROSS = ((0, 7), (3, 4))
"""Diagonals of the front face, which show the heading."""
_LINES = np.array(_EDGES + _FRONT_CROSS)
"""(L, 2) corners at the ends of a box's lines, in the order of drawing."""

_BOX_SCALE = trust_scale("boxes: trust in LiDAR or cameras")

_NEAR_PLANE = 0.3
_FIELD_STEP = 8
"""Pixels between two places of the field of weights."""
_LARGEST_OPACITY = np.float32(0.55)
"""Opacity of the strongest evidence; the image stays visible."""


def camera_picture(
    view: CameraView,
    weights: CameraWeightMap | None,
    detections: Detections,
    signed: bool = False,
    options: PictureOptions = DEFAULT,
    caption: Caption | None = None,
    source: Literal["router", "attention"] = "router",
) -> NDArray[np.uint8]:
    """Return a view's image, (H, W, 3) BGR, with its weights and boxes.

    Where no query is, the image is unchanged. Boxes are coloured by modality. Each has a label with class and score,
    unless it would cover legend, caption or the label of a detection with a higher score; in the view of trust the
    label has the weights of the LiDAR (L) and of the cameras (C), too. A picture with weights has a legend, if it is
    large enough.

    Args:
        signed: whether weights may be negative; then their colours diverge.
        caption: what to write of the frame; None for a picture without words about it.
        source: see `WeightMaps.source`.
    """
    picture: NDArray[np.uint8] = view.image.copy()
    trust = options.view == "trust"
    shown = weights is not None and _draw_field(picture, view, weights, signed, options)
    tops = _draw_boxes(picture, view, detections)
    covered: list[Rectangle | None] = []
    if not shown and caption is not None:
        covered.append(draw_legend(picture, [_BOX_SCALE]))
    if shown:
        by_score = weights is not None and weights.queries is not None and (trust or options.by_score)
        note = "faint: low score; clear: no query" if by_score else "clear: no query"
        if trust:
            note += "; L, C: weights of LiDAR and cameras"
        covered.append(draw_legend(picture, _scales(trust, signed, source), note))
    if caption is not None:
        title = _title(view.name, trust, bool(shown), source)
        covered.append(draw_caption(picture, title, caption.lines(), alarm=bool(caption.missing)))
    _draw_labels(picture, detections, tops, [place for place in covered if place is not None], trust)
    return picture


def _title(name: str, trust: bool, shown: bool, source: str) -> str:
    if not shown:
        return f"camera {name}: no weights"
    if trust:
        return f"camera {name}: LiDAR or cameras?"
    return f"camera {name}: " + ("attention on it" if source == "attention" else "weight of its image")


def _scales(trust: bool, signed: bool, source: str) -> Sequence[Scale]:
    """Return the scales of all colours in the picture."""
    if trust:
        return [trust_scale("trust in LiDAR or cameras")]
    title = "image: share of attention" if source == "attention" else "image: weight of this camera"
    return [weight_scale(title, signed), _BOX_SCALE]


def _draw_field(
    picture: NDArray[np.uint8], view: CameraView, weights: CameraWeightMap, signed: bool, options: PictureOptions
) -> bool:
    """Draw a camera's weights, or the trust in LiDAR or cameras; return whether they are known."""
    queries = weights.queries
    if options.view == "trust":
        if queries is None:
            return False
        field = _query_field(view, weights, trust_balance(queries.lidar_weight, queries.camera_weight))
        colours = trust_colours(field.values)
    else:
        if options.by_score and queries is not None:
            field = _query_field(view, weights, queries.weights)
        else:
            field = _map_field(view, weights, signed)
        colours = heat_colours(field.values, signed)
    blend(picture, colours, field.visibility * _LARGEST_OPACITY, _FIELD_STEP)
    return True


def _query_field(view: CameraView, weights: CameraWeightMap, values: NDArray[np.float32]) -> WeightField:
    queries, size = weights.queries, (view.image.shape[1], view.image.shape[0])
    assert queries is not None  # checked by the caller
    in_camera = transform_points(view.extrinsics, queries.positions.astype(np.float64))
    pixels, depths = project(view.intrinsics, in_camera)
    # A camera that does not see a query has weight 0 for it.
    seen = (queries.weights != 0) & (depths > _NEAR_PLANE) & np.isfinite(pixels).all(axis=1)
    values = np.where(seen, values, np.float32(np.nan))
    return from_queries(queries, values, np.nan_to_num(pixels), queries.sigma, size, _FIELD_STEP)


def _map_field(view: CameraView, weights: CameraWeightMap, signed: bool) -> WeightField:
    height, width = view.image.shape[:2]
    # Cell centres are at half-integers in map coordinates, but at integers for warpAffine.
    middle = (_FIELD_STEP - 1) / 2
    to_image = np.array([[_FIELD_STEP, 0, middle], [0, _FIELD_STEP, middle], [0, 0, 1]])
    to_map = (weights.image_to_map @ to_image)[:2]
    to_map[:, 2] -= 0.5
    values: NDArray[Any] = cv2.warpAffine(
        weights.values,
        to_map,
        (-(-width // _FIELD_STEP), -(-height // _FIELD_STEP)),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )
    return from_map(values, signed)


def _draw_boxes(
    picture: NDArray[np.uint8], view: CameraView, detections: Detections
) -> list[tuple[int, tuple[int, int], Sequence[int]]]:
    """Draw boxes, the best on top; return the index, the highest pixel and the colour of each visible one."""
    thickness = max(1, round(picture.shape[1] / 800))
    order = np.argsort(detections.scores, kind="stable")
    colours = modality_colours(detections.lidar_weight[order], detections.camera_weight[order])
    tops = []
    for index, lines in _visible_lines(view, detections.boxes[order]):
        drawn = [_draw_line(picture, line, colours[index], thickness) for line in lines]
        ends = [(end[0], end[1]) for line in drawn if line is not None for end in line]
        if ends:
            tops.append((int(order[index]), min(ends, key=lambda pixel: pixel[1]), colours[index]))
    return tops


def _draw_labels(
    picture: NDArray[np.uint8],
    detections: Detections,
    tops: Sequence[tuple[int, tuple[int, int], Sequence[int]]],
    covered: list[Rectangle],
    with_weights: bool,
) -> None:
    thickness = max(1, round(picture.shape[1] / 800))
    for index, top, colour in reversed(tops):  # best first: a label never covers a better one
        text = f"{detections.classes[detections.labels[index]]} {detections.scores[index]:.2f}"
        if with_weights:
            text += f" L {detections.lidar_weight[index]:.1f} C {detections.camera_weight[index]:.1f}"
        _label(picture, text, top, colour, thickness, covered)


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


def _draw_line(picture: NDArray[np.uint8], line: Line, colour: Sequence[int], thickness: int) -> Line | None:
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
    colour: Sequence[int],
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
