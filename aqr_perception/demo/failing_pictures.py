# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pictures of failing cameras: black, dirty, or taken by a camera that is turned against its calibration."""

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.corruption.camera_corruption import black, blurred, cover

TURNED_DEGREES = 4.0
"""Rotation of a misaligned camera about its own vertical axis, against the calibration in TF."""

_SEED = 7
_BLUR = 0.3
"""Severity of the blur of a dirty lens; see `camera_corruption.blurred`."""
_BLOTCHES = 9
_SMALLEST, _LARGEST = 0.05, 0.16
"""Radii of the blotches as shares of the picture's width."""


def black_picture(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a black picture of the same size."""
    return black(image).image


def dirty_picture(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture through a lens with mud in blotches and a film that blurs; the mud stays in its place."""
    height, width = image.shape[:2]
    # One state of the random numbers, as neither the film nor the mud's colour changes from picture to picture.
    hazy = blurred(image, _BLUR, _still()).image
    return cover(hazy, _blotches(height, width), _still()).image


def turned_picture(
    image: NDArray[np.uint8], intrinsics: NDArray[np.float64], degrees: float = TURNED_DEGREES
) -> NDArray[np.uint8]:
    """Return the picture of a camera that is turned to its right by an angle, without moving.

    The part of the scene that the original does not show repeats its border.

    Args:
        image: (H, W, 3).
        intrinsics: (3, 3) pinhole matrix of the image.
        degrees: the angle.
    """
    angle = np.radians(degrees)
    # A direction of the original camera in the turned one: what was ahead is to the left.
    turn = np.array([[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]])
    onto = intrinsics @ turn @ np.linalg.inv(intrinsics)
    size = (image.shape[1], image.shape[0])
    turned = cv2.warpPerspective(image, onto, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return turned.astype(np.uint8, copy=False)


def _still() -> np.random.Generator:
    return np.random.default_rng(_SEED)


@functools.cache
def _blotches(height: int, width: int) -> NDArray[np.uint8]:
    """Return where the mud is: (H, W), 255 in the blotches."""
    rng = _still()
    covered = np.zeros((height, width), np.uint8)
    for _ in range(_BLOTCHES):
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0.15, 1.0) * height))
        radius = rng.uniform(_SMALLEST, _LARGEST) * width
        axes = (max(1, round(radius)), max(1, round(0.7 * radius)))
        cv2.ellipse(covered, centre, axes, float(rng.uniform(0, 180)), 0, 360, 255, cv2.FILLED)
    return covered
