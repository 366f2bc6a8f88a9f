# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""PETR's own preset entries, under the key ``petr``."""

from dataclasses import dataclass
from typing import Literal

from aqr_perception.options import BoxConvention


@dataclass(frozen=True)
class PetrOptions:
    """Options of PETR and PETRv2.

    Attributes:
        frames: 1 is PETR; 2 is PETRv2, which also attends to a past frame.
        position_range: x, y, z minimum and maximum in metres that the position embedding of image cells spans.
        camera_azimuths: azimuths of the six cameras' optical axes in degrees, in the model frame, counter-clockwise
            from +x, in the order front, front right, front left, back, back left, back right. A camera gets the
            position of the nearest heading, so missing and reordered cameras do not affect the others. The default is
            nuScenes' ring in its LiDAR's frame (y forward), in which the published weights were trained.
        frame_gap: desired age of the past frame in seconds.
        box_convention: convention of the box codes in the weights: of mmdetection3d before version 1.0, as in the
            published weights, or since.
    """

    frames: Literal[1, 2] = 1
    position_range: tuple[float, float, float, float, float, float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    camera_azimuths: tuple[float, float, float, float, float, float] = (90.0, 34.0, 146.0, -90.0, -162.0, -20.0)
    frame_gap: float = 1.245
    box_convention: BoxConvention = "mmdet3d_0"
