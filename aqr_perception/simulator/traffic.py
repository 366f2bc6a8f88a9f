# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Traffic placement and motion in road coordinates: lanes, parked vehicles, work zones and people."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aqr_perception.simulator.objects import KINDS, draw_size
from aqr_perception.simulator.road import Road

LANE_WIDTH = 3.5
KERB = 2 * LANE_WIDTH + 3.2
"""Lateral distance in metres of the kerb from the middle of the road: two lanes and a parking strip per side."""
PAVEMENT = 4.0
"""Width in metres."""

_MARGIN = 85.0
"""Metres behind the vehicle's start and ahead of its end in which objects are placed."""
_LANE_SHARES = {"car": 0.52, "truck": 0.16, "bus": 0.11, "motorcycle": 0.1, "bicycle": 0.08, "trailer": 0.03}
_PARKED_SHARES = {"car": 0.6, "truck": 0.1, "bus": 0.05, "motorcycle": 0.1, "bicycle": 0.09, "trailer": 0.06}


@dataclass(frozen=True)
class RoadPath:
    """Uniform motion in road coordinates.

    Attributes:
        s, d: position at the start, metres.
        speed, sideways: velocity along s and d, m/s.
        turn: heading relative to the direction of the road, radians.
    """

    s: float
    d: float
    speed: float = 0.0
    sideways: float = 0.0
    turn: float = 0.0

    def pose(self, road: Road, time: float, height: float) -> NDArray[np.float64]:
        """Return the (4, 4) pose in the world, with z = height and x along the heading."""
        s, d = self.s + self.speed * time, self.d + self.sideways * time
        heading = float(road.direction(s)) + self.turn
        pose = np.eye(4)
        cos, sin = np.cos(heading), np.sin(heading)
        pose[:2, :2] = [[cos, -sin], [sin, cos]]
        pose[:2, 3], pose[2, 3] = road.position(s, d), height
        return pose


@dataclass(frozen=True)
class PlacedObject:
    """An object's class, size and path."""

    name: str
    size: NDArray[np.float64]
    path: RoadPath


def draw_traffic(rng: np.random.Generator, duration: float) -> tuple[RoadPath, list[PlacedObject]]:
    """Return the vehicle's path and the objects around it, from empty to crowded."""
    density = rng.choice([0.0, 0.25, 0.6, 1.0, 1.6], p=[0.04, 0.16, 0.3, 0.3, 0.2])
    lanes = {-1.5 * LANE_WIDTH: 1, -0.5 * LANE_WIDTH: 1, 0.5 * LANE_WIDTH: -1, 1.5 * LANE_WIDTH: -1}
    speeds = {d: float(rng.choice([0.0, rng.uniform(2.0, 13.0)], p=[0.15, 0.85])) for d in lanes}
    own = float(rng.choice([-1.5, -0.5])) * LANE_WIDTH
    ego = RoadPath(0.0, own, speeds[own])
    ahead = ego.speed * duration + _MARGIN
    street = _Street(rng)
    street.reserve(0.0, own, 3.5, 1.6)
    for d, sense in lanes.items():
        # The range includes objects that approach or overtake the vehicle during the drive.
        closing = (speeds[d] * sense - ego.speed) * duration
        _fill_lane(street, d, sense, speeds[d], (-_MARGIN - max(closing, 0.0), ahead - min(closing, 0.0)), density)
    _park_vehicles(street, (-_MARGIN, ahead), density)
    _place_work_zones(street, ahead, density)
    _place_people(street, (-_MARGIN, ahead), density)
    return ego, street.placed


class _Street:
    """Placement of objects without overlap at the start of the scene; vehicles then stay in their lanes."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.placed: list[PlacedObject] = []
        self._reserved: list[tuple[float, float, float, float]] = []

    def reserve(self, s: float, d: float, half_s: float, half_d: float) -> bool:
        """Reserve a rectangle; return False if it overlaps a reserved one."""
        for other_s, other_d, other_half_s, other_half_d in self._reserved:
            if abs(s - other_s) < half_s + other_half_s and abs(d - other_d) < half_d + other_half_d:
                return False
        self._reserved.append((s, d, half_s, half_d))
        return True

    def place(self, name: str, path: RoadPath, gap: float = 0.3) -> bool:
        """Place an object of a class; return False if there is no room."""
        size = draw_size(name, self.rng)
        cos, sin = abs(np.cos(path.turn)), abs(np.sin(path.turn))
        half_s, half_d = (size[0] * cos + size[1] * sin) / 2 + gap, (size[0] * sin + size[1] * cos) / 2 + gap
        if not self.reserve(path.s, path.d, half_s, half_d):
            return False
        self.placed.append(PlacedObject(name, size, path))
        return True


def _fill_lane(street: _Street, d: float, sense: int, speed: float, span: tuple[float, float], density: float) -> None:
    """Place vehicles in the lane at `d`; `sense` is 1 along the road, -1 against it."""
    rng = street.rng
    s = span[0] + rng.uniform(0, 15)
    while s < span[1] and density > 0:
        name = str(rng.choice(list(_LANE_SHARES), p=list(_LANE_SHARES.values())))
        length = KINDS[name].size[0]
        spare = max(LANE_WIDTH / 2 - 0.6 * KINDS[name].size[1], 0.0)
        wander = np.clip(rng.normal(0, 0.25), -spare, spare)
        turn = (0.0 if sense > 0 else np.pi) + rng.normal(0, 0.02)
        centre = s + length / 2
        placed = street.place(name, RoadPath(centre, d + wander, sense * speed, 0.0, turn), 0.5)
        if placed and name == "truck" and rng.random() < 0.4:
            # A trailer behind the truck.
            behind = centre - sense * (length / 2 + KINDS["trailer"].size[0] / 2 + 0.6)
            street.place("trailer", RoadPath(behind, d + wander, sense * speed, 0.0, turn), 0.1)
            s += KINDS["trailer"].size[0] + 1.0
        s += length + 2.0 + rng.exponential(22.0 / density)


def _park_vehicles(street: _Street, span: tuple[float, float], density: float) -> None:
    """Place parked vehicles along both kerbs."""
    rng = street.rng
    for side in (-1, 1):
        s = span[0] + rng.uniform(0, 10)
        while s < span[1] and density > 0:
            name = str(rng.choice(list(_PARKED_SHARES), p=list(_PARKED_SHARES.values())))
            length = KINDS[name].size[0]
            turn = (0.0 if side < 0 else np.pi) + rng.normal(0, 0.04)
            if name in ("motorcycle", "bicycle") or (name == "car" and rng.random() < 0.1):
                turn += rng.choice([0.0, np.pi / 2, -np.pi / 2, np.pi])
            half_width = max(KINDS[name].size[1], KINDS[name].size[0] * abs(np.sin(turn))) / 2
            d = side * (2 * LANE_WIDTH + 0.25 + 1.15 * half_width + rng.uniform(0, 0.2))
            street.place(name, RoadPath(s + length / 2, d, turn=turn), 0.25)
            s += length + 0.8 + rng.exponential(11.0 / density)


def _place_work_zones(street: _Street, ahead: float, density: float) -> None:
    """Place construction vehicles behind rows of cones or barriers near the kerb."""
    rng = street.rng
    for _ in range(rng.poisson(1.1 * density)):
        side = rng.choice([-1, 1])
        s, d = rng.uniform(-40.0, ahead - 30.0), side * (KERB + rng.uniform(-0.5, 5.0))
        for _ in range(rng.integers(1, 3)):
            turn = rng.uniform(-np.pi, np.pi)
            street.place(
                "construction_vehicle", RoadPath(s + rng.normal(0, 7), d + side * rng.uniform(0.5, 4.0), turn=turn)
            )
        name = str(rng.choice(["traffic_cone", "barrier"]))
        step = rng.uniform(1.5, 3.5) if name == "traffic_cone" else rng.uniform(2.7, 3.4)
        for index in range(rng.integers(5, 14)):
            turn = np.pi / 2 + rng.normal(0, 0.06)
            street.place(name, RoadPath(s - 10 + index * step, d - side * (2.2 + rng.normal(0, 0.12)), turn=turn), 0.05)


def _place_people(street: _Street, span: tuple[float, float], density: float) -> None:
    """Place groups of pedestrians on the pavements, pedestrians on the road, and single objects along the kerbs."""
    rng = street.rng
    groups = rng.poisson((span[1] - span[0]) / 16.0 * density)
    for _ in range(groups):
        side = rng.choice([-1, 1])
        s, d = rng.uniform(*span), side * (KERB + rng.uniform(0.6, PAVEMENT - 0.5))
        moving = rng.random() < KINDS["pedestrian"].moving
        sense = rng.choice([-1, 1])
        speed = sense * rng.uniform(*KINDS["pedestrian"].speed) if moving else 0.0
        for _ in range(1 + rng.poisson(0.8)):
            turn = (0.0 if sense > 0 else np.pi) + rng.normal(0, 0.15) if moving else rng.uniform(-np.pi, np.pi)
            place = (s + rng.normal(0, 0.9), d + rng.normal(0, 0.5))
            street.place("pedestrian", RoadPath(*place, speed, 0.0, turn), 0.05)
    for _ in range(rng.poisson(1.5 * density)):  # crossing the road
        d, sense = rng.uniform(-KERB, KERB), rng.choice([-1, 1])
        path = RoadPath(rng.uniform(*span), d, 0.0, sense * rng.uniform(0.8, 1.7), sense * np.pi / 2)
        street.place("pedestrian", path, 0.2)
    for _ in range(rng.poisson(1.2 * density)):  # single objects away from work zones
        name = str(rng.choice(["traffic_cone", "barrier", "bicycle"]))
        place = (rng.uniform(*span), rng.choice([-1, 1]) * rng.uniform(2 * LANE_WIDTH, KERB + PAVEMENT))
        street.place(name, RoadPath(*place, turn=rng.uniform(-np.pi, np.pi)))
