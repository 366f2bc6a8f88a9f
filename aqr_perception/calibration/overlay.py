# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pictures of a camera's image with the LiDAR's points on it, before and after a rotation."""

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.calibration.check import corrected
from aqr_perception.frame import CameraView
from aqr_perception.geometry import project, transform_points

_WIDTH = 1600
_NEAREST, _FURTHEST = 2.0, 60.0
_MARGIN = 12


def overlay(view: CameraView, points: NDArray[np.float32], rotation: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return (H, W, 3) BGR: the image with its points as calibrated, and below it with the rotated ones.

    Points are coloured by distance, red near and blue far.

    Args:
        points: (N, >=3) in the frame of the view's extrinsics.
        rotation: (3,) rotation vector in degrees along the camera's axes.
    """
    scale = min(1.0, _WIDTH / view.image.shape[1])
    image = cv2.resize(view.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    intrinsics = np.diag([scale, scale, 1.0]) @ view.intrinsics
    angle = float(np.linalg.norm(rotation))
    before = _drawn(image, intrinsics, transform_points(view.extrinsics, points), f"{view.name}: as calibrated")
    after = _drawn(
        image,
        intrinsics,
        transform_points(corrected(view, rotation), points),
        f"{view.name}: turned by {angle:.2f} deg",
    )
    return np.concatenate([before, after])


def _drawn(
    image: NDArray[np.generic], intrinsics: NDArray[np.float64], points: NDArray[np.float64], title: str
) -> NDArray[np.uint8]:
    picture: NDArray[np.uint8] = np.array(image, np.uint8, order="C")
    pixels, depths = project(intrinsics, points)
    height, width = picture.shape[:2]
    seen = np.flatnonzero(
        (depths > _NEAREST) & (depths < _FURTHEST) & (pixels >= 0).all(axis=1) & (pixels < (width, height)).all(axis=1)
    )
    shares = np.log(depths[seen] / _NEAREST) / np.log(_FURTHEST / _NEAREST)
    colours = cv2.applyColorMap((255 * (1 - shares)).astype(np.uint8)[:, None], cv2.COLORMAP_JET)[:, 0]
    for index, colour in zip(seen, colours.tolist(), strict=True):
        cv2.circle(picture, (int(pixels[index, 0]), int(pixels[index, 1])), 2, colour, -1)
    place = (_MARGIN, 3 * _MARGIN)
    cv2.putText(picture, title, place, cv2.FONT_HERSHEY_SIMPLEX, 0.9, (0, 0, 0), 4, cv2.LINE_AA)
    cv2.putText(picture, title, place, cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2, cv2.LINE_AA)
    return picture
