"""Legend of signed weight maps, drawn into a picture."""

from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.visualization.colours import MAP_LIMIT, heat_colours

_LABELS = ("suppressed", "neutral", "trusted")
_NUMBERS = (f"{-MAP_LIMIT:g}", "0", f"{MAP_LIMIT:+g}")
_LARGEST_SHARE = (0.7, 0.35)
"""Largest part of the picture's width and height that the legend may take."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE, _BLACK = (235, 235, 235), (0, 0, 0)

Rectangle = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


def draw_signed_legend(picture: NDArray[np.uint8]) -> Rectangle | None:
    """Draw the colours of signed weights, with their meanings and numbers, into the bottom right corner.

    Args:
        picture: (H, W, 3) BGR.

    Returns:
        the rectangle that the legend covers; None if the picture is too small for a legend, and therefore unchanged.
    """
    height, width = picture.shape[:2]
    scale, thickness = 0.4 * max(1.0, width / 1000), max(1, round(width / 1200))
    sizes = [cv2.getTextSize(label, _FONT, scale, thickness)[0] for label in _LABELS]
    pad = round(8 * scale)
    text_height = sizes[0][1]
    # The middle label is centred, so both halves are as wide as the longer outer label needs.
    bar_width = 2 * (max(sizes[0][0], sizes[2][0]) + 2 * pad) + sizes[1][0]
    bar_height = text_height + round(1.5 * pad)
    # Descenders of the labels take half a pad more than their height.
    legend_width, legend_height = bar_width + 2 * pad, bar_height + text_height + round(3.5 * pad)
    margin = round(0.75 * pad)
    if legend_width + margin > _LARGEST_SHARE[0] * width or legend_height + margin > _LARGEST_SHARE[1] * height:
        return None
    left, top = width - margin - legend_width, height - margin - legend_height
    right, bottom = left + legend_width, top + legend_height

    plate = picture[top:bottom, left:right]
    plate[:] = plate // 5  # dark, so that the labels are readable on any picture
    bar_left, bar_top = left + pad, top + pad
    values = np.linspace(-MAP_LIMIT, MAP_LIMIT, bar_width, dtype=np.float32)
    picture[bar_top : bar_top + bar_height, bar_left : bar_left + bar_width] = heat_colours(values, signed=True)
    # The bar is bright at its ends and dark in its middle.
    on_bar = bar_top + round(0.75 * pad) + text_height
    row = partial(_write_row, picture, scale=scale, thickness=thickness)
    row(_NUMBERS, (_BLACK, _WHITE, _BLACK), left=bar_left + pad, width=bar_width - 2 * pad, baseline=on_bar)
    row(_LABELS, (_WHITE,) * 3, left=bar_left, width=bar_width, baseline=bottom - round(1.25 * pad))
    return left, top, right, bottom


def _write_row(
    picture: NDArray[np.uint8],
    texts: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
    left: int,
    width: int,
    baseline: int,
    scale: float,
    thickness: int,
) -> None:
    """Write three texts: the first from the left edge, the second in the middle, the third up to the right edge."""
    for place, (text, colour) in enumerate(zip(texts, colours, strict=True)):
        text_width = cv2.getTextSize(text, _FONT, scale, thickness)[0][0]
        column = left + round((width - text_width) * place / 2)
        cv2.putText(picture, text, (column, baseline), _FONT, scale, colour, thickness, cv2.LINE_AA)
