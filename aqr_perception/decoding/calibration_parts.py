# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The parts of a calibration that images depend on, for comparison."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo

_NUMBERS = ("width", "height", "d", "k", "r", "p", "binning_x", "binning_y")
_ROI = ("x_offset", "y_offset", "height", "width")


def calibration_parts(info: "CameraInfo") -> dict[str, object]:
    """Return comparable values of a CameraInfo by field; NaN equals NaN."""
    parts: dict[str, object] = {name: np.asarray(getattr(info, name), np.float64).tobytes() for name in _NUMBERS}
    return parts | {
        "distortion_model": info.distortion_model,
        "roi": tuple(getattr(info.roi, name) for name in _ROI),
    }


def changed_parts(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Return the names of the fields that differ between two results of `calibration_parts`."""
    return [name for name, value in after.items() if before[name] != value]
