# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A road of constant curvature with coordinates along and across it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Road:
    """Coordinates along (s, metres) and to the left (d, metres) of a circular arc through the world's origin.

    Attributes:
        curvature: 1/m, positive to the left; 0 is straight. Must be below 1 / the largest |d| in use.
        heading: heading of the arc at s = 0, radians.
    """

    curvature: float
    heading: float

    def direction(self, s: ArrayLike) -> NDArray[np.float64]:
        """Return the heading of the road at s."""
        return self.heading + self.curvature * np.asarray(s, dtype=np.float64)

    def position(self, s: ArrayLike, d: ArrayLike) -> NDArray[np.float64]:
        """Return (..., 2) world x and y."""
        s, d = np.broadcast_arrays(np.asarray(s, np.float64), np.asarray(d, np.float64))
        # Chord of an arc; sinc is exact at curvature 0.
        middle = self.heading + self.curvature * s / 2
        chord = s * np.sinc(self.curvature * s / 2 / np.pi)
        heading = self.direction(s)
        x = chord * np.cos(middle) - d * np.sin(heading)
        y = chord * np.sin(middle) + d * np.cos(heading)
        return np.stack([x, y], axis=-1)

    def coordinates(self, points: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return s and d of (..., 2) world points; the inverse of `position` within half a turn."""
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        x, y = points[..., 0] * cos + points[..., 1] * sin, points[..., 1] * cos - points[..., 0] * sin
        if abs(self.curvature) < 1e-9:
            return x, y
        radius = 1 / self.curvature
        angle = np.arctan2(x * np.sign(radius), (radius - y) * np.sign(radius))
        return angle * radius, radius - np.sign(radius) * np.hypot(x, radius - y)
