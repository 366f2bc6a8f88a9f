# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Picture of a labelled frame: all cameras and the bird's-eye view (BEV), with the true boxes."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import CameraView, Detections, GroundTruth, LabelledFrame, WeightMaps
from aqr_perception.visualization.bev_picture import bev_picture
from aqr_perception.visualization.camera_picture import camera_picture

_CAMERA_ORDER = ("front_left", "front", "front_right", "back_left", "back", "back_right")
_COLUMNS = 3
_REACH = 55.0
"""Half the width of the BEV in metres."""


def truth_picture(labelled: LabelledFrame) -> NDArray[np.uint8]:
    """Return a BGR picture: the cameras in rows of three, and the BEV below them."""
    frame, truth = labelled.frame, labelled.truth
    cameras = _tiled(_camera_pictures(frame.cameras, truth))
    maps = WeightMaps(None, (-_REACH, -_REACH, _REACH, _REACH), {}, "router")
    from_above = bev_picture(maps, frame.points, _as_detections(truth, len(frame.cameras)))
    scale = cameras.shape[1] / from_above.shape[1]
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    below = cv2.resize(from_above, None, fx=scale, fy=scale, interpolation=interpolation)
    return np.concatenate([cameras, below.astype(np.uint8, copy=False)])


def _camera_pictures(views: Sequence[CameraView], truth: GroundTruth) -> list[NDArray[np.uint8]]:
    """Return the pictures of the cameras in `_CAMERA_ORDER`, each with the boxes that it shows."""
    order = {name: place for place, name in enumerate(_CAMERA_ORDER)}
    indices = sorted(range(len(views)), key=lambda index: order.get(views[index].name, len(order)))
    return [
        camera_picture(views[index], None, _as_detections(truth.keep(truth.visibility[:, index] > 0), len(views)))
        for index in indices
    ]


def _tiled(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return pictures in rows of three on black."""
    height = max((picture.shape[0] for picture in pictures), default=0)
    width = max((picture.shape[1] for picture in pictures), default=300)
    tiled = np.zeros((math.ceil(len(pictures) / _COLUMNS) * height, _COLUMNS * width, 3), np.uint8)
    for place, picture in enumerate(pictures):
        row, column = divmod(place, _COLUMNS)
        tiled[row * height :, column * width :][: picture.shape[0], : picture.shape[1]] = picture
    return tiled


def _as_detections(truth: GroundTruth, views: int) -> Detections:
    ones = np.ones(len(truth), np.float32)
    weights = np.ones((len(truth), views), np.float32)
    return Detections(truth.boxes, ones, truth.labels, ones, ones, weights, truth.classes)
