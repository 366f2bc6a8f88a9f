"""Who is where and goes whither: lanes, kerbs, pavements and a work zone, in road coordinates."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aqr_perception.simulator.objects import KINDS, draw_size
from aqr_perception.simulator.road import Road

LANE_WIDTH = 3.5
KERB = 2 * LANE_WIDTH + 3.2
"""Lateral distance of the kerb from the middle of the road: two lanes and a parking strip on either side."""
PAVEMENT = 4.0

_BEFORE = 85.0
"""Metres behind and before the vehicle in which objects are placed."""


@dataclass(frozen=True)
class Path:
    """Uniform motion in road coordinates.

    Attributes:
        s, d: place at the start, metres.
        speed, sideways: along s and d, m/s.
        turn: heading relative to the direction of the road, radians.
    """

    s: float
    d: float
    speed: float = 0.0
    sideways: float = 0.0
    turn: float = 0.0

    def pose(self, road: Road, time: float, height: float) -> NDArray[np.float64]:
        """Return the (4, 4) pose in the world, z = height, x along the heading."""
        s, d = self.s + self.speed * time, self.d + self.sideways * time
        heading = float(road.direction(s)) + self.turn
        pose = np.eye(4)
        cos, sin = np.cos(heading), np.sin(heading)
        pose[:2, :2] = [[cos, -sin], [sin, cos]]
        pose[:2, 3], pose[2, 3] = road.position(s, d), height
        return pose


@dataclass(frozen=True)
class Placed:
    """An object's class, size and path."""

    name: str
    size: NDArray[np.float64]
    path: Path


def draw_traffic(rng: np.random.Generator, duration: float) -> tuple[Path, list[Placed]]:
    """Return the vehicle's path and the objects around it, from none at all to a crowd."""
    density = rng.choice([0.0, 0.25, 0.6, 1.0, 1.6], p=[0.04, 0.16, 0.3, 0.3, 0.2])
    lanes = {-1.5 * LANE_WIDTH: 1, -0.5 * LANE_WIDTH: 1, 0.5 * LANE_WIDTH: -1, 1.5 * LANE_WIDTH: -1}
    speeds = {d: float(rng.choice([0.0, rng.uniform(2.0, 13.0)], p=[0.15, 0.85])) for d in lanes}
    own = float(rng.choice([-1.5, -0.5])) * LANE_WIDTH
    ego = Path(0.0, own, speeds[own])
    ahead = ego.speed * duration + _BEFORE
    street = _Street(rng)
    street.reserve(0.0, own, 3.5, 1.6)
    for d, sense in lanes.items():
        # What comes towards us, or overtakes, must be placed where it will be met.
        closing = (speeds[d] * sense - ego.speed) * duration
        _fill_lane(street, d, sense, speeds[d], (-_BEFORE - max(closing, 0.0), ahead - min(closing, 0.0)), density)
    _park(street, (-_BEFORE, ahead), density)
    _work_zone(street, ahead, density)
    _people(street, (-_BEFORE, ahead), density)
    return ego, street.placed


class _Street:
    """Places objects where none is yet. Two may come close only where both move, and then in lanes of their own."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.placed: list[Placed] = []
        self._taken: list[tuple[float, float, float, float]] = []

    def reserve(self, s: float, d: float, half_s: float, half_d: float) -> bool:
        """Take a rectangle; false where it is taken already."""
        for other_s, other_d, other_half_s, other_half_d in self._taken:
            if abs(s - other_s) < half_s + other_half_s and abs(d - other_d) < half_d + other_half_d:
                return False
        self._taken.append((s, d, half_s, half_d))
        return True

    def place(self, name: str, path: Path, gap: float = 0.3) -> bool:
        """Place an object of a class; false where there is no room."""
        size = draw_size(name, self.rng)
        cos, sin = abs(np.cos(path.turn)), abs(np.sin(path.turn))
        half_s, half_d = (size[0] * cos + size[1] * sin) / 2 + gap, (size[0] * sin + size[1] * cos) / 2 + gap
        if not self.reserve(path.s, path.d, half_s, half_d):
            return False
        self.placed.append(Placed(name, size, path))
        return True


def _fill_lane(street: _Street, d: float, sense: int, speed: float, span: tuple[float, float], density: float) -> None:
    rng = street.rng
    s = span[0] + rng.uniform(0, 15)
    while s < span[1] and density > 0:
        name = str(rng.choice(_LANE_CLASSES, p=_LANE_SHARES))
        length = KINDS[name].size[0]
        spare = max(LANE_WIDTH / 2 - 0.6 * KINDS[name].size[1], 0.0)
        wander = np.clip(rng.normal(0, 0.25), -spare, spare)
        turn = (0.0 if sense > 0 else np.pi) + rng.normal(0, 0.02)
        centre = s + length / 2
        placed = street.place(name, Path(centre, d + wander, sense * speed, 0.0, turn), 0.5)
        if placed and name == "truck" and rng.random() < 0.4:
            # A trailer behind its truck.
            behind = centre - sense * (length / 2 + KINDS["trailer"].size[0] / 2 + 0.6)
            street.place("trailer", Path(behind, d + wander, sense * speed, 0.0, turn), 0.1)
            s += KINDS["trailer"].size[0] + 1.0
        s += length + 2.0 + rng.exponential(22.0 / density)


_LANE_CLASSES = ["car", "truck", "bus", "motorcycle", "bicycle", "trailer"]
_LANE_SHARES = [0.52, 0.16, 0.11, 0.1, 0.08, 0.03]


def _park(street: _Street, span: tuple[float, float], density: float) -> None:
    rng = street.rng
    classes, shares = ["car", "truck", "bus", "motorcycle", "bicycle", "trailer"], [0.6, 0.1, 0.05, 0.1, 0.09, 0.06]
    for side in (-1, 1):
        s = span[0] + rng.uniform(0, 10)
        while s < span[1] and density > 0:
            name = str(rng.choice(classes, p=shares))
            length = KINDS[name].size[0]
            turn = (0.0 if side < 0 else np.pi) + rng.normal(0, 0.04)
            if name in ("motorcycle", "bicycle") or (name == "car" and rng.random() < 0.1):
                turn += rng.choice([0.0, np.pi / 2, -np.pi / 2, np.pi])
            half_width = max(KINDS[name].size[1], KINDS[name].size[0] * abs(np.sin(turn))) / 2
            d = side * (2 * LANE_WIDTH + 0.25 + 1.15 * half_width + rng.uniform(0, 0.2))
            street.place(name, Path(s + length / 2, d, turn=turn), 0.25)
            s += length + 0.8 + rng.exponential(11.0 / density)


def _work_zone(street: _Street, ahead: float, density: float) -> None:
    """Construction vehicles behind rows of cones or barriers, at the kerb or in the middle."""
    rng = street.rng
    for _ in range(rng.poisson(1.1 * density)):
        side = rng.choice([-1, 1])
        s, d = rng.uniform(-40.0, ahead - 30.0), side * (KERB + rng.uniform(-0.5, 5.0))
        for _ in range(rng.integers(1, 3)):
            turn = rng.uniform(-np.pi, np.pi)
            street.place(
                "construction_vehicle", Path(s + rng.normal(0, 7), d + side * rng.uniform(0.5, 4.0), turn=turn)
            )
        name = str(rng.choice(["traffic_cone", "barrier"]))
        step = rng.uniform(1.5, 3.5) if name == "traffic_cone" else rng.uniform(2.7, 3.4)
        for index in range(rng.integers(5, 14)):
            turn = np.pi / 2 + rng.normal(0, 0.06)
            street.place(name, Path(s - 10 + index * step, d - side * (2.2 + rng.normal(0, 0.12)), turn=turn), 0.05)


def _people(street: _Street, span: tuple[float, float], density: float) -> None:
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
            street.place("pedestrian", Path(*place, speed, 0.0, turn), 0.05)
    for _ in range(rng.poisson(1.5 * density)):  # crossing the road
        d, sense = rng.uniform(-KERB, KERB), rng.choice([-1, 1])
        path = Path(rng.uniform(*span), d, 0.0, sense * rng.uniform(0.8, 1.7), sense * np.pi / 2)
        street.place("pedestrian", path, 0.2)
    for _ in range(rng.poisson(1.2 * density)):  # alone in odd places, as cones, barriers and bicycles are
        name = str(rng.choice(["traffic_cone", "barrier", "bicycle"]))
        place = (rng.uniform(*span), rng.choice([-1, 1]) * rng.uniform(2 * LANE_WIDTH, KERB + PAVEMENT))
        street.place(name, Path(*place, turn=rng.uniform(-np.pi, np.pi)))
