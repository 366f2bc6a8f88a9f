"""Reliability of each sensor in a labelled frame, the target of the router."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import LabelledFrame

HEALTH_GRID = (16, 28)
"""Rows and columns of an image's health grid."""


@dataclass(frozen=True)
class SensorHealth:
    """Reliability of each sensor by place: 1 intact, 0 blind.

    Attributes:
        lidar: (R, R) float32, rows y and columns x ascending, spanning `reach` metres in every direction.
        reach: half the edge length of `lidar`'s square in metres.
        cameras: by name, `HEALTH_GRID` float32 spanning the image; a camera without an entry is intact.
    """

    lidar: NDArray[np.float32] = field(default_factory=lambda: np.ones((1, 1), np.float32))
    reach: float = 60.0
    cameras: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class FrameWithHealth:
    """A labelled frame and the health of its sensors. A missing sensor is not in the frame."""

    labelled: LabelledFrame
    health: SensorHealth = field(default_factory=SensorHealth)
