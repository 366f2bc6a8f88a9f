# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Colours of weights and modalities in all pictures and markers.

The three scales are even in the colour space CAM02-UCS, and people with deuteranopia or protanopia can tell their
colours apart (`test/visualization/test_colours.py`). The background of maps is black: no scale contains it, so a weight
of 0 differs from a place without a weight.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

MAP_LIMIT = 1.5
"""Largest magnitude in published weight maps, in which Gaussians may add up. A weight itself is at most 1."""

LIDAR_COLOUR = (255, 140, 0)
"""RGB of a detection supported by the LiDAR: orange."""

CAMERA_COLOUR = (0, 170, 255)
"""RGB of a detection supported by cameras: blue. Colour-blind people can tell it from orange."""

NEITHER_COLOUR = (128, 128, 128)
"""RGB of a detection that neither supports; much darker than equal support."""

_LEVELS = 255
"""Odd, so that diverging scales have a middle level."""

_FIRST_VIRIDIS = 52
"""Level of viridis for weight 0: darker ones look like the background."""

# RGB at equal steps of CAM02-UCS.
_TRUST = (
    *(CAMERA_COLOUR, (95, 180, 242), (134, 190, 233), (164, 200, 229), (190, 211, 228), (213, 222, 230)),
    (235, 235, 235),
    *((234, 222, 210), (237, 208, 180), (241, 192, 146), (246, 176, 110), (251, 159, 70), LIDAR_COLOUR),
)
_SIGNED = (
    *((96, 128, 250), (96, 121, 206), (94, 113, 170), (91, 103, 140), (86, 94, 114), (81, 84, 92)),
    (74, 74, 74),
    *((95, 81, 77), (118, 86, 76), (143, 89, 73), (169, 91, 68), (197, 90, 60), (226, 86, 48)),
)


def _interpolated(anchors: ArrayLike) -> NDArray[np.uint8]:
    """Return `_LEVELS` BGR colours (_LEVELS, 3) at equal distances between RGB colours (N, 3)."""
    colours = np.asarray(anchors, np.float64)[:, ::-1]
    places = np.linspace(0, len(colours) - 1, _LEVELS)
    channels = [np.interp(places, np.arange(len(colours)), channel) for channel in colours.T]
    levels: NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return levels


_VIRIDIS: NDArray[Any] = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
_WEIGHT_COLOURS = _interpolated(_VIRIDIS[_FIRST_VIRIDIS:])
_SIGNED_COLOURS = _interpolated(_SIGNED)
_TRUST_COLOURS = _interpolated(_TRUST)


def heat_colours(values: ArrayLike, signed: bool = False) -> NDArray[np.uint8]:
    """Return (..., 3) BGR of weights.

    Args:
        values: in [0, 1], from violet to yellow (viridis without its darkest part). If `signed`, in [-1, 1]: grey at 0,
            to blue (suppressed) below and to red (trusted) above. Values outside get the colour of the limit.
        signed: whether values may be negative.
    """
    if signed:
        return _coloured(values, _SIGNED_COLOURS, -1.0)
    return _coloured(values, _WEIGHT_COLOURS, 0.0)


def trust_colours(balance: ArrayLike) -> NDArray[np.uint8]:
    """Return (..., 3) BGR of balances, see `trust_balance`: `CAMERA_COLOUR`, white at 0, `LIDAR_COLOUR`.

    NaN has `NEITHER_COLOUR`.
    """
    balance = np.asarray(balance, np.float32)
    colours = _coloured(np.nan_to_num(balance), _TRUST_COLOURS, -1.0)
    colours[np.isnan(balance)] = NEITHER_COLOUR[::-1]
    return colours


def trust_balance(lidar_weight: ArrayLike, camera_weight: ArrayLike) -> NDArray[np.float32]:
    """Return (L - C) / (L + C) of weights L and C (...): 1 for LiDAR alone, 0 for both alike, -1 for cameras alone.

    A sensor with a negative weight is suppressed and supports nothing, as with weight 0. NaN: neither weight is
    positive, or one is not a number.
    """
    lidar, camera = (np.maximum(np.asarray(weight, np.float64), 0.0) for weight in (lidar_weight, camera_weight))
    total = np.asarray(lidar + camera)
    balance = np.full(total.shape, np.nan)
    np.divide(lidar - camera, total, out=balance, where=total > 0)
    return balance.astype(np.float32)


def modality_colour(lidar_weight: float, camera_weight: float) -> tuple[int, int, int]:
    """Return the RGB of a detection with these weights; see `trust_balance` and `trust_colours`."""
    blue, green, red = trust_colours(trust_balance(lidar_weight, camera_weight)).tolist()
    return red, green, blue


def modality_colours(lidar_weights: ArrayLike, camera_weights: ArrayLike) -> list[Sequence[int]]:
    """Return the BGR of detections with (N,) weights."""
    colours: list[Sequence[int]] = trust_colours(trust_balance(lidar_weights, camera_weights)).tolist()
    return colours


def _coloured(values: ArrayLike, colours: NDArray[np.uint8], lowest: float) -> NDArray[np.uint8]:
    """Return the colours of values between `lowest` and 1; NaN counts as `lowest`."""
    levels = (np.asarray(values, np.float32) - np.float32(lowest)) * np.float32((_LEVELS - 1) / (1.0 - lowest))
    index = np.rint(np.nan_to_num(levels, nan=0.0)).clip(0, _LEVELS - 1).astype(np.intp)
    coloured: NDArray[np.uint8] = colours.take(index, axis=0)  # always a copy
    return coloured
