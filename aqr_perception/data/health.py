# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sensor health in a labelled frame: how usable each sensor's data is, as target of the router."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import LabelledFrame

HEALTH_GRID = (16, 28)
"""Rows and columns of an image's health grid."""

BROKEN = 0.5
"""Largest health of a broken place."""


@dataclass(frozen=True)
class SensorHealth:
    """Health of each sensor by position: 1 is intact, 0 is without information.

    Attributes:
        lidar: (R, R) float32 over `reach` metres in every direction; rows ascend with y, columns with x.
        reach: half the edge length of `lidar`'s square in metres.
        cameras: camera name -> `HEALTH_GRID` float32 over the image; a camera without an entry is intact.
    """

    lidar: NDArray[np.float32] = field(default_factory=lambda: np.ones((1, 1), np.float32))
    reach: float = 60.0
    cameras: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class FrameWithHealth:
    """A labelled frame and the health of its sensors. A missing sensor is not in the frame.

    Attributes:
        changed_pictures: names of the cameras whose picture training changed at random, by corruption, augmentation or
            masking, so that it will hardly come again.
    """

    labelled: LabelledFrame
    health: SensorHealth = field(default_factory=SensorHealth)
    changed_pictures: frozenset[str] = frozenset()
