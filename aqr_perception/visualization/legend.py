# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Legend and caption of a picture: scales with numbers and meanings, what is shown, its stamp, the missing sensors."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.visualization.colours import heat_colours, trust_colours

Rectangle = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""

Colour = tuple[int, int, int]

_LEGEND_SHARE, _CAPTION_SHARE = (0.85, 0.5), (1.0, 0.35)
"""Largest part of the picture's width and height that legend and caption may take."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE, _SOFT, _ALARM = (240, 240, 240), (190, 190, 190), (70, 200, 255)
_PLATE = 24
"""Grey level behind texts and scales. It is opaque: through the plate, the picture would change the scales' colours."""

_WIDE = 1.5
"""Aspect ratio from which scales stand side by side."""


class Scale(NamedTuple):
    """A bar of colours.

    Attributes:
        kind: ``weight`` from 0 to 1, ``signed`` and ``trust`` from -1 to 1.
        title: what the colours show.
        labels: numbers and meanings of the left end, the middle and the right end.
    """

    kind: Literal["weight", "signed", "trust"]
    title: str
    labels: tuple[str, str, str]


def weight_scale(title: str, signed: bool) -> Scale:
    """Return the scale of weights."""
    if signed:
        return Scale("signed", title, ("-1 suppressed", "0 neutral", "+1 trusted"))
    return Scale("weight", title, ("0 ignored", "0.5", "1 trusted"))


def trust_scale(title: str) -> Scale:
    """Return the scale of `colours.trust_balance`."""
    return Scale("trust", title, ("-1 cameras", "0 both", "+1 LiDAR"))


def draw_legend(picture: NDArray[np.uint8], scales: Sequence[Scale], note: str = "") -> Rectangle | None:
    """Draw scales into the bottom right corner.

    Args:
        picture: (H, W, 3) BGR.
        note: a line below the scales.

    Returns:
        the rectangle that the legend covers; None if the picture is too small for a legend, and therefore unchanged.
    """
    height, width = picture.shape[:2]
    plate = _legend_plate(tuple(scales), note, width > _WIDE * height, *_text_size(width))
    margin = _margin(width)
    if not _fits(plate, picture, _LEGEND_SHARE, margin):
        if note:
            return draw_legend(picture, scales)
        return draw_legend(picture, scales[:1]) if len(scales) > 1 else None
    return _paste(picture, plate, width - margin - plate.shape[1], height - margin - plate.shape[0])


def draw_caption(picture: NDArray[np.uint8], title: str, lines: Sequence[str], alarm: bool = False) -> Rectangle | None:
    """Write a title and lines below it into the top left corner; without those that do not fit.

    Args:
        picture: (H, W, 3) BGR.
        alarm: whether the first of the lines is in the colour of warnings.

    Returns:
        as `draw_legend`.
    """
    width = picture.shape[1]
    texts, margin = [title, *lines], _margin(width)
    while texts:
        colours = (_WHITE, _ALARM if alarm else _SOFT, *[_SOFT] * len(texts))
        plate = _caption_plate(tuple(texts), colours[: len(texts)], *_text_size(width))
        if _fits(plate, picture, _CAPTION_SHARE, margin):
            return _paste(picture, plate, margin, margin)
        texts.pop()
    return None


def _text_size(width: int) -> tuple[float, int]:
    """Return scale and thickness of text in a picture of a width."""
    return 0.34 * max(1.0, width / 1000), max(1, round(width / 1200))


def _margin(width: int) -> int:
    return max(3, round(width / 200))


def _fits(plate: NDArray[np.uint8], picture: NDArray[np.uint8], share: tuple[float, float], margin: int) -> bool:
    height, width = picture.shape[:2]
    free = (share[0] * width - plate.shape[1], share[1] * height - plate.shape[0])
    return bool(min(free) >= 2 * margin)


def _paste(picture: NDArray[np.uint8], plate: NDArray[np.uint8], left: int, top: int) -> Rectangle:
    right, bottom = left + plate.shape[1], top + plate.shape[0]
    picture[top:bottom, left:right] = plate
    return left, top, right, bottom


@lru_cache(maxsize=32)
def _legend_plate(
    scales: tuple[Scale, ...], note: str, side_by_side: bool, text_scale: float, thickness: int
) -> NDArray[np.uint8]:
    """Return a legend; cached, because most pictures have the same one."""
    pad, line = round(24 * text_scale), round(38 * text_scale)
    width = max(_scale_width(scale, text_scale, thickness, pad) for scale in scales)
    parts = [_scale_plate(scale, width, text_scale, thickness) for scale in scales]
    if side_by_side:
        gap = np.full((parts[0].shape[0], 2 * pad, 3), _PLATE, np.uint8)
        parts = [np.concatenate([piece for part in parts for piece in (part, gap)][:-1], axis=1)]
    inner = np.concatenate(parts)
    if note:
        row = np.full((line, max(inner.shape[1], _text_width(note, text_scale, thickness)), 3), _PLATE, np.uint8)
        _write(row, note, (0, round(0.65 * line)), _SOFT, text_scale, thickness)
        missing = row.shape[1] - inner.shape[1]
        inner = np.concatenate([np.pad(inner, ((0, 0), (0, missing), (0, 0)), constant_values=_PLATE), row])
    plate = np.pad(inner, ((pad // 2, pad // 2), (pad, pad), (0, 0)), constant_values=_PLATE)
    plate.setflags(write=False)
    return plate


def _scale_width(scale: Scale, text_scale: float, thickness: int, pad: int) -> int:
    label = max(_text_width(text, text_scale, thickness) for text in scale.labels)
    return max(3 * label + 2 * pad, _text_width(scale.title, text_scale, thickness))


def _scale_plate(scale: Scale, width: int, text_scale: float, thickness: int) -> NDArray[np.uint8]:
    """Return title, bar and labels of a scale."""
    line = round(38 * text_scale)
    plate = np.full((3 * line, width, 3), _PLATE, np.uint8)
    _write(plate, scale.title, (0, round(0.65 * line)), _WHITE, text_scale, thickness)
    bar = slice(line - line // 8, 2 * line - line // 8)
    plate[bar] = _bar_colours(scale.kind, width)
    for place, label in enumerate(scale.labels):
        left = round((width - _text_width(label, text_scale, thickness)) * place / 2)
        _write(plate, label, (left, round(2.75 * line)), _SOFT, text_scale, thickness)
        tick = min(round(width * place / 2), width - 1)
        plate[bar.stop : bar.stop + max(line // 6, 1), tick] = _SOFT
    return plate


def _bar_colours(kind: str, width: int) -> NDArray[np.uint8]:
    if kind == "weight":
        return heat_colours(np.linspace(0, 1, width))
    values = np.linspace(-1, 1, width)
    return heat_colours(values, signed=True) if kind == "signed" else trust_colours(values)


@lru_cache(maxsize=64)
def _caption_plate(
    texts: tuple[str, ...], colours: tuple[Colour, ...], text_scale: float, thickness: int
) -> NDArray[np.uint8]:
    pad, line = round(17 * text_scale), round(38 * text_scale)
    width = max(_text_width(text, text_scale, thickness) for text in texts)
    plate = np.full((len(texts) * line + pad, width + 2 * pad, 3), _PLATE, np.uint8)
    for row, (text, colour) in enumerate(zip(texts, colours, strict=True)):
        _write(plate, text, (pad, round((row + 0.7) * line) + pad // 2), colour, text_scale, thickness)
    plate.setflags(write=False)
    return plate


def _text_width(text: str, text_scale: float, thickness: int) -> int:
    return cv2.getTextSize(text, _FONT, text_scale, thickness)[0][0]


def _write(
    plate: NDArray[np.uint8], text: str, at: tuple[int, int], colour: Colour, text_scale: float, thickness: int
) -> None:
    cv2.putText(plate, text, at, _FONT, text_scale, colour, thickness, cv2.LINE_AA)
