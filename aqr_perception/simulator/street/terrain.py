# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The street's layout and ground: lanes, kerbs, pavements, a crossing road, gradients and banks."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aqr_perception.simulator.road import Road
from aqr_perception.simulator.solids import Mesh
from aqr_perception.simulator.street.forms import surface

_Floats = NDArray[np.float64]
BLEND = 6.0
"""Metres along the road over which kerbs and banks fade at the crossing."""


@dataclass(frozen=True)
class Street:
    """A street in road coordinates (s along the road, d to its left), metres.

    Attributes:
        lane_width: width of a lane.
        lanes: lanes of each direction.
        parking: width of the parking strip of each side.
        pavement: width of each pavement, kerb stone included.
        kerb_height: height of the kerb.
        crossing: s and half the width of the crossing road; None without one.
        gradient: amplitude in metres, wavelength in metres and phase of the height along the road.
        banks: slope of the ground beyond the pavements, right and left, up if positive, over 12 m.
    """

    road: Road
    lane_width: float
    lanes: int
    parking: float
    pavement: float
    kerb_height: float
    crossing: tuple[float, float] | None
    gradient: tuple[float, float, float]
    banks: tuple[float, float]

    @property
    def kerb(self) -> float:
        """Lateral distance of the kerbs from the middle of the road."""
        return self.lanes * self.lane_width + self.parking

    @property
    def edge(self) -> float:
        """Lateral distance of the pavements' outer edges."""
        return self.kerb + self.pavement

    def lane_centres(self) -> list[float]:
        """Return d of the lanes; traffic drives along the road on the right, where d is negative."""
        return [side * (lane + 0.5) * self.lane_width for side in (-1, 1) for lane in range(self.lanes)]

    def outside_crossing(self, s: ArrayLike) -> _Floats:
        """Return 0 on the crossing road to 1 away from it."""
        along = np.asarray(s, np.float64)
        if self.crossing is None:
            return np.ones_like(along)
        share: _Floats = np.clip((np.abs(along - self.crossing[0]) - self.crossing[1]) / BLEND, 0.0, 1.0)
        return share

    def height(self, s: ArrayLike, d: ArrayLike) -> _Floats:
        """Return the ground's height in metres."""
        along, across = np.broadcast_arrays(np.asarray(s, np.float64), np.asarray(d, np.float64))
        amplitude, wavelength, phase = self.gradient
        fade = self.outside_crossing(along)
        height = amplitude * np.sin(2 * np.pi * along / wavelength + phase)
        raised = np.clip((np.abs(across) - self.kerb) / 0.02, 0.0, 1.0)
        bank = np.where(across < 0, self.banks[0], self.banks[1]) * np.clip(np.abs(across) - self.edge - 0.3, 0.0, 12.0)
        ground_height: _Floats = height + fade * (self.kerb_height * raised + bank)
        return ground_height

    def pose(self, s: float, d: float, turn: float) -> _Floats:
        """Return the (4, 4) pose on the ground, tilted by gradients; x points `turn` radians left of the road."""
        amplitude, wavelength, phase = self.gradient
        slope = amplitude * 2 * math.pi / wavelength * math.cos(2 * math.pi * s / wavelength + phase)
        direction = self.road.heading + self.road.curvature * s
        cos, sin = math.cos(direction), math.sin(direction)
        length = math.hypot(slope, 1.0)
        # Axes along the road, to its left and up from it, then turned about the last one.
        along, left = np.array([cos, sin, slope]) / length, np.array([-sin, cos, 0.0])
        pose = np.eye(4)
        pose[:3, 0] = math.cos(turn) * along + math.sin(turn) * left
        pose[:3, 1] = math.cos(turn) * left - math.sin(turn) * along
        pose[:3, 2] = np.array([-slope * cos, -slope * sin, 1.0]) / length
        pose[:3, 3] = self._place(s, d)
        return pose

    def upright(self, s: float, d: float, turn: float) -> _Floats:
        """Return the (4, 4) pose of something vertical on the ground."""
        heading = self.road.heading + self.road.curvature * s + turn
        pose = np.eye(4)
        pose[:2, :2] = [[math.cos(heading), -math.sin(heading)], [math.sin(heading), math.cos(heading)]]
        pose[:3, 3] = self._place(s, d)
        return pose

    def _place(self, s: float, d: float) -> tuple[float, float, float]:
        """Return x, y and z of one point on the ground: as `Road.position` and `height`, and faster."""
        curvature, heading = self.road.curvature, self.road.heading
        middle, half = heading + curvature * s / 2, curvature * s / 2
        chord = s * (math.sin(half) / half if half else 1.0)
        direction = heading + curvature * s
        x = chord * math.cos(middle) - d * math.sin(direction)
        y = chord * math.sin(middle) + d * math.cos(direction)
        amplitude, wavelength, phase = self.gradient
        height = amplitude * math.sin(2 * math.pi * s / wavelength + phase)
        across = abs(d)
        if across > self.kerb:
            fade = 1.0
            if self.crossing is not None:
                fade = min(max((abs(s - self.crossing[0]) - self.crossing[1]) / BLEND, 0.0), 1.0)
            raised = min((across - self.kerb) / 0.02, 1.0)
            bank = self.banks[0 if d < 0 else 1] * min(max(across - self.edge - 0.3, 0.0), 12.0)
            height += fade * (self.kerb_height * raised + bank)
        return x, y, height

    def coordinates(self, points: NDArray[Any]) -> tuple[_Floats, _Floats]:
        """Return s and d of (N, 2 or more) world points."""
        return self.road.coordinates(points[:, :2])


def draw_street(rng: np.random.Generator) -> Street:
    """Return a random street: from a narrow lane to six lanes, straight or curved, level or hilly."""
    lanes = int(rng.choice((1, 2, 3), p=(0.4, 0.45, 0.15)))
    wavelength = rng.uniform(90, 260)
    steepest = float(rng.choice((0.0, rng.uniform(0.0, 0.04)), p=(0.35, 0.65)))
    crossing = (rng.uniform(-30, 60), rng.uniform(3.4, 7.0)) if rng.random() < 0.4 else None
    return Street(
        Road(float(rng.choice((0.0, rng.uniform(-0.004, 0.004)))), rng.uniform(-np.pi, np.pi)),
        lane_width=rng.uniform(2.9, 3.7),
        lanes=lanes,
        parking=float(rng.choice((0.2, 2.6), p=(0.3, 0.7))),
        pavement=rng.uniform(2.4, 5.5),
        kerb_height=rng.uniform(0.06, 0.17),
        crossing=crossing,
        gradient=(steepest * wavelength / (2 * np.pi), wavelength, rng.uniform(-np.pi, np.pi)),
        banks=(float(rng.choice((0.0, rng.uniform(-0.2, 0.35)))), float(rng.choice((0.0, rng.uniform(-0.2, 0.35))))),
    )


def ground(street: Street, lower: float, upper: float) -> Mesh:
    """Return the ground as a mesh: fine along a stretch of the road, coarse around it."""
    across = [
        street.kerb,
        street.kerb + 0.025,
        street.edge,
        street.edge + 0.3,
        street.edge + 5,
        street.edge + 12.3,
        60.0,
        200.0,
    ]
    d = np.array([*(-value for value in reversed(across)), 0.0, *across])
    s = [-350.0 + lower, -120.0 + lower, *np.arange(lower, upper, 6.0), upper + 120.0, upper + 350.0]
    if street.crossing is not None:
        middle, half = street.crossing
        s += [middle - half - BLEND, middle - half, middle + half, middle + half + BLEND]
    along = np.unique(np.array(s))
    if street.road.curvature:  # stay within half a turn, where road coordinates are unique
        reach = 0.9 * np.pi / abs(street.road.curvature)
        along = along[np.abs(along) < reach]
        d = d[np.abs(d) < 0.9 / abs(street.road.curvature)]
    grid_s, grid_d = np.meshgrid(along, d, indexing="ij")
    z = street.height(grid_s, grid_d)
    vertices = np.concatenate([street.road.position(grid_s, grid_d), z[..., None]], axis=-1).reshape(-1, 3)
    rows, columns = len(along), len(d)
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)[None]).ravel()
    faces = np.concatenate(
        [np.c_[corner, corner + columns, corner + columns + 1], np.c_[corner, corner + columns + 1, corner + 1]]
    )
    return surface(vertices, faces, "ground")
