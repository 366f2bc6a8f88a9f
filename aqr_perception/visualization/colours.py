"""Colours of weights and modalities in all pictures and markers."""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MAP_LIMIT = 1.5
"""Magnitude of the weights that have the strongest colour. Only models with a limit of their own have larger ones."""

LIDAR_COLOUR = (255, 140, 0)
"""RGB of a detection supported by the LiDAR: orange."""

CAMERA_COLOUR = (0, 170, 255)
"""RGB of a detection supported by cameras: blue. Colour-blind people can tell it from orange."""

_NEUTRAL = 127
"""Level of weight 0 in the colour map of signed weights."""


def _diverging() -> NDArray[np.uint8]:
    """Return the colour map of signed weights, (256, 1, 3) BGR; levels 0 to 254 are symmetric around `_NEUTRAL`.

    It is a line in CIE Lab from each end to the middle, with equal steps. Both ends have one lightness and one chroma.
    The hues, blue and red, stay apart for colour-blind people, because one is bluish and the other yellowish. The
    middle is dark, so that points, rings and boxes are readable where weights are neutral.
    """
    neutral_lightness, lightness, chroma, blue, red = 6.0, 62.0, 62.0, math.radians(285), math.radians(35)
    weights = np.arange(-_NEUTRAL, _NEUTRAL + 1) / _NEUTRAL
    hues, magnitudes = np.where(weights < 0, blue, red), np.abs(weights)
    lab = (
        neutral_lightness + (lightness - neutral_lightness) * magnitudes,
        chroma * magnitudes * np.cos(hues),
        chroma * magnitudes * np.sin(hues),
    )
    bgr = cv2.cvtColor(np.stack(lab, axis=-1).astype(np.float32)[:, None], cv2.COLOR_LAB2BGR)
    levels = np.rint(bgr * 255).clip(0, 255).astype(np.uint8)
    return np.concatenate([levels, levels[-1:]])  # OpenCV needs 256 levels


_DIVERGING: NDArray[Any] = _diverging()
# Given as an enumerator, OpenCV would compute the map at each call.
_INFERNO: NDArray[Any] = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)


def modality_colour(lidar_weight: float, camera_weight: float) -> tuple[int, int, int]:
    """Return the RGB mix of `LIDAR_COLOUR` and `CAMERA_COLOUR` in proportion to the weights; grey without support.

    A sensor with a negative weight is suppressed and supports nothing, as with weight 0. Grey therefore means that
    neither weight is positive.
    """
    lidar, camera = max(float(lidar_weight), 0.0), max(float(camera_weight), 0.0)
    total = lidar + camera
    if not total > 0:
        return (128, 128, 128)
    share = lidar / total
    red, green, blue = (
        round(share * own + (1 - share) * other) for own, other in zip(LIDAR_COLOUR, CAMERA_COLOUR, strict=True)
    )
    return red, green, blue


def heat_colours(values: NDArray[np.number], signed: bool = False) -> NDArray[np.uint8]:
    """Return (..., 3) BGR of map values, perceptually uniform.

    Args:
        values: in [0, 1.5]: from nearly black to yellow. If `signed`, in [-1.5, 1.5]: nearly black at 0, to blue
            (suppressed) below and to red (trusted) above. Values outside get the colour of the limit.
        signed: whether values may be negative.
    """
    values = np.asarray(values, dtype=np.float32)
    if signed:
        levels = np.asarray(values * (_NEUTRAL / MAP_LIMIT))
        lowest, highest, offset, colour_map = -_NEUTRAL, _NEUTRAL, _NEUTRAL, _DIVERGING
    else:
        levels = np.asarray(values * (255 / MAP_LIMIT))
        lowest, highest, offset, colour_map = 0, 255, 0, _INFERNO
    np.rint(levels, out=levels)
    np.clip(levels, lowest, highest, out=levels)
    levels += offset
    colours = cv2.applyColorMap(levels.astype(np.uint8).reshape(-1, 1), colour_map)
    return colours.reshape(*values.shape, 3).astype(np.uint8, copy=False)
