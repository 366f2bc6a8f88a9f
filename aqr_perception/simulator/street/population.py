# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Traffic of world 2: places and motion of its objects, none of which is inside another."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aqr_perception.simulator.objects import KINDS, draw_size
from aqr_perception.simulator.street.terrain import Street

_MARGIN = 85.0
"""Metres behind the vehicle's start and ahead of its end in which objects are placed."""
_BEFORE = 2.5
"""Seconds before the scene's start that a frame with earlier sweeps may show."""
_LANE = {
    "car": 0.6,
    "truck": 0.13,
    "bus": 0.07,
    "motorcycle": 0.08,
    "bicycle": 0.08,
    "construction_vehicle": 0.02,
    "trailer": 0.02,
}
_PARKED = {"car": 0.7, "truck": 0.08, "bus": 0.03, "motorcycle": 0.07, "bicycle": 0.06, "trailer": 0.06}
EGO_LENGTH, EGO_WIDTH, EGO_MIDDLE = 5.0, 2.0, 1.4
"""Footprint of the own vehicle, and its middle ahead of the rear axle, metres."""


@dataclass(frozen=True)
class Pace:
    """Speed of a lane: a mean and a slow wave, in which vehicles brake and accelerate.

    Attributes:
        mean: m/s, 0 for a queue.
        wave: amplitude of the displacement in metres.
        rate: radians per second.
    """

    mean: float
    wave: float = 0.0
    rate: float = 0.5
    phase: float = 0.0

    def distance(self, time: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Return the distance driven since time 0."""
        turned = self.wave * (np.sin(self.rate * np.asarray(time) + self.phase) - np.sin(self.phase))
        return np.asarray(self.mean * np.asarray(time) + turned, np.float64)

    def braking(self, time: float) -> bool:
        """Return whether brake lights are on: in a queue, or while slowing down."""
        slowing = -self.wave * self.rate**2 * np.sin(self.rate * time + self.phase) < -0.5
        return self.mean == 0.0 or bool(slowing)


@dataclass(frozen=True)
class Track:
    """Motion of an object in road coordinates.

    Attributes:
        s, d: position at time 0, metres.
        turn: heading relative to the road, radians.
        pace: motion along the heading's direction, rounded to the road or across it; None for a static object.
        along, across: direction of the motion, e.g. (1, 0) along the road.
        parked: static with its lights off.
    """

    s: float
    d: float
    turn: float = 0.0
    pace: Pace | None = None
    along: float = 0.0
    across: float = 0.0
    parked: bool = False

    def place(self, time: NDArray[np.float64] | float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return s and d at times."""
        moved = np.zeros_like(np.asarray(time, np.float64)) if self.pace is None else self.pace.distance(time)
        return self.s + self.along * moved, self.d + self.across * moved


@dataclass(frozen=True)
class Placed:
    """An object's class, size and motion."""

    name: str
    size: NDArray[np.float64]
    track: Track


class Occupancy:
    """Rectangles in road coordinates that objects cover over the time of a scene."""

    def __init__(self, rng: np.random.Generator, duration: float) -> None:
        self.rng = rng
        self.placed: list[Placed] = []
        self._times = np.arange(-_BEFORE, duration + 1.0, 0.5)
        self._boxes = np.zeros((0, len(self._times), 4))
        self._heights = np.zeros(0)

    def reserve(self, track: Track, length: float, width: float, gap: float, height: float = 0.0) -> bool:
        """Reserve the rectangle of an object; return False if it meets another at any time of the scene."""
        box = self._rectangles(track, length, width, gap)
        if self._met(box).any():
            return False
        self._boxes, self._heights = np.concatenate([self._boxes, box]), np.append(self._heights, height)
        return True

    def clear_above(self, track: Track, length: float, width: float, height: float) -> bool:
        """Return whether no object reaches above a height inside a rectangle, e.g. into the crown of a tree."""
        return not (self._met(self._rectangles(track, length, width, 0.0)) & (self._heights > height)).any()

    def _met(self, box: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return a mask of the reserved rectangles that meet a rectangle (1, T, 4) at any time."""
        near = np.abs(self._boxes[..., :2] - box[..., :2]) < self._boxes[..., 2:] + box[..., 2:]
        return np.asarray(near.all(axis=-1).any(axis=-1))

    def _rectangles(self, track: Track, length: float, width: float, gap: float) -> NDArray[np.float64]:
        """Return s, d and half the extents along both (1, T, 4) at the times of the scene."""
        s, d = track.place(self._times)
        cos, sin = abs(np.cos(track.turn)), abs(np.sin(track.turn))
        box = np.empty((1, len(self._times), 4))
        box[0, :, 0], box[0, :, 1] = s, d
        box[0, :, 2], box[0, :, 3] = (length * cos + width * sin) / 2 + gap, (length * sin + width * cos) / 2 + gap
        return box

    def place(self, name: str, track: Track, gap: float = 0.15) -> bool:
        """Place an object of a class; return False if there is no room."""
        size = draw_size(name, self.rng)
        if not self.reserve(track, size[0], size[1], gap, size[2]):
            return False
        self.placed.append(Placed(name, size, track))
        return True


def draw_traffic(street: Street, rng: np.random.Generator, duration: float) -> tuple[Track, Occupancy]:
    """Return the own vehicle's motion and the objects around it, from an empty to a crowded street."""
    density = float(rng.choice((0.08, 0.3, 0.7, 1.1, 1.7), p=(0.05, 0.15, 0.3, 0.3, 0.2)))
    occupancy = Occupancy(rng, duration)
    paces = {d: _pace(rng) for d in street.lane_centres()}
    own = float(rng.choice([d for d in paces if d < 0]))
    ego = Track(0.0, own, 0.0, paces[own], 1.0)
    occupancy.reserve(Track(EGO_MIDDLE, own, 0.0, paces[own], 1.0), EGO_LENGTH, EGO_WIDTH, 0.5)
    end = float(ego.place(duration)[0])
    _work_zones(occupancy, street, end, density)
    for d, pace in paces.items():
        reach = float(pace.distance(duration)) if d < 0 else -float(pace.distance(duration))
        _fill_lane(
            occupancy,
            street,
            d,
            pace,
            (-_MARGIN - max(reach - end, 0.0), end + _MARGIN - min(reach - end, 0.0)),
            density,
        )
    _crossing_traffic(occupancy, street, density)
    if street.parking > 2:
        _park(occupancy, street, (-_MARGIN, end + _MARGIN), density)
    _people(occupancy, street, (-_MARGIN, end + _MARGIN), density)
    return ego, occupancy


def _pace(rng: np.random.Generator) -> Pace:
    if rng.random() < 0.2:
        return Pace(0.0)
    mean, rate = rng.uniform(2.5, 15.0), rng.uniform(0.3, 0.7)
    return Pace(mean, rng.uniform(0, 0.7) * min(mean, 5.0) / rate, rate, rng.uniform(-np.pi, np.pi))


def _fill_lane(
    occupancy: Occupancy, street: Street, d: float, pace: Pace, span: tuple[float, float], density: float
) -> None:
    rng, sense = occupancy.rng, 1.0 if d < 0 else -1.0
    s = span[0] + rng.uniform(0, 15)
    while s < span[1]:
        name = str(rng.choice(list(_LANE), p=np.array(list(_LANE.values())) / sum(_LANE.values())))
        length = KINDS[name].size[0]
        spare = max(street.lane_width / 2 - 0.58 * KINDS[name].size[1], 0.0)
        aside = float(np.clip(rng.normal(0, 0.25), -spare, spare))
        turn = (0.0 if sense > 0 else np.pi) + rng.normal(0, 0.02)
        centre = s + length / 2
        placed = occupancy.place(name, Track(centre, d + aside, turn, pace, sense), 0.1)
        if placed and name == "truck" and rng.random() < 0.35:
            behind = centre - sense * (length / 2 * 1.15 + KINDS["trailer"].size[0] / 2 * 1.15)
            occupancy.place("trailer", Track(behind, d + aside, turn, pace, sense), 0.05)
        queue = 1.0 if pace.mean else 0.35
        s += length + 1.5 + rng.exponential(20.0 * queue / density)


def _park(occupancy: Occupancy, street: Street, span: tuple[float, float], density: float) -> None:
    rng = occupancy.rng
    for side in (-1, 1):
        s = span[0] + rng.uniform(0, 10)
        while s < span[1]:
            name = str(rng.choice(list(_PARKED), p=list(_PARKED.values())))
            length, width = KINDS[name].size[:2]
            turn = (0.0 if side < 0 else np.pi) + rng.normal(0, 0.035) + (np.pi if rng.random() < 0.12 else 0.0)
            if name in ("motorcycle", "bicycle"):
                turn += float(rng.choice((0.0, np.pi / 2, -np.pi / 2)))
            d = side * (street.kerb - 0.2 - 0.55 * max(width, length * abs(np.sin(turn))))
            away = street.outside_crossing(s + length / 2) >= 1.0
            if away:
                occupancy.place(name, Track(s + length / 2, d, turn, parked=True), 0.1)
            s += length + 0.7 + rng.exponential(10.0 / density)


def _crossing_traffic(occupancy: Occupancy, street: Street, density: float) -> None:
    """Place vehicles that wait at the crossing road's ends, or drive away on it."""
    if street.crossing is None:
        return
    rng, (middle, half) = occupancy.rng, street.crossing
    for side in (-1, 1):
        for leaving in (False, True):
            # On the right of the driving direction.
            s = middle + side * (1 if leaving else -1) * half / 2
            pace = Pace(rng.uniform(2, 9)) if leaving else Pace(0.0)
            d = street.kerb + 3.0 + rng.uniform(0, 3) + (25.0 if leaving else 0.0)
            for _ in range(rng.poisson(1.5 * density)):
                name = str(rng.choice(("car", "truck", "bus", "motorcycle", "bicycle"), p=(0.65, 0.1, 0.05, 0.1, 0.1)))
                length = KINDS[name].size[0]
                if KINDS[name].size[1] * 1.2 < half:
                    out = float(side if leaving else -side)
                    track = Track(s, side * (d + length / 2), out * np.pi / 2, pace, 0.0, out)
                    occupancy.place(name, track, 0.3)
                d += length + 1.5 + rng.exponential(6.0)


def _work_zones(occupancy: Occupancy, street: Street, end: float, density: float) -> None:
    """Place machines behind rows of cones or barriers, on the outer lane, strip and pavement."""
    rng = occupancy.rng
    for _ in range(rng.poisson(0.9 * density)):
        side, s = int(rng.choice((-1, 1))), rng.uniform(-40.0, end + 50.0)
        inner = street.kerb - rng.uniform(0.0, max(street.parking, 0.5))
        name = str(rng.choice(("traffic_cone", "barrier"), p=(0.55, 0.45)))
        step = rng.uniform(1.5, 3.5) if name == "traffic_cone" else rng.uniform(2.9, 3.3)
        count = int(rng.integers(4, 13))
        for index in range(count):
            turn = np.pi / 2 + rng.normal(0, 0.06)
            occupancy.place(name, Track(s + index * step, side * (inner + rng.normal(0, 0.1)), turn), 0.02)
        for _ in range(rng.integers(1, 3)):
            at, out = s + rng.uniform(0.1, 0.9) * count * step, rng.uniform(2.0, 6.0)
            occupancy.place("construction_vehicle", Track(at, side * (inner + out), rng.uniform(-np.pi, np.pi)), 0.2)
        for _ in range(rng.poisson(1.5)):
            at, out = s + rng.uniform(0, 1) * count * step, rng.uniform(0.8, 5.0)
            occupancy.place("pedestrian", Track(at, side * (inner + out), rng.uniform(-np.pi, np.pi)), 0.05)


def _people(occupancy: Occupancy, street: Street, span: tuple[float, float], density: float) -> None:
    """Place pedestrians on the pavements and crossing the road, and single objects at the kerbs."""
    rng = occupancy.rng
    for _ in range(rng.poisson((span[1] - span[0]) / 15.0 * density)):
        side, sense = int(rng.choice((-1, 1))), float(rng.choice((-1.0, 1.0)))
        s, d = rng.uniform(*span), side * (street.kerb + rng.uniform(1.3, max(street.pavement - 0.4, 1.4)))
        moving = rng.random() < 0.7
        pace = Pace(rng.uniform(0.6, 1.8)) if moving else None
        for _ in range(1 + rng.poisson(0.8)):
            turn = (0.0 if sense > 0 else np.pi) + rng.normal(0, 0.1) if moving else rng.uniform(-np.pi, np.pi)
            track = Track(s + rng.normal(0, 0.9), d + rng.normal(0, 0.3), turn, pace, sense)
            occupancy.place("pedestrian", track, 0.05)
    for _ in range(rng.poisson(2.0 * density)):
        sense = float(rng.choice((-1.0, 1.0)))
        track = Track(
            rng.uniform(*span),
            rng.uniform(-street.kerb, street.kerb),
            sense * np.pi / 2,
            Pace(rng.uniform(0.8, 1.7)),
            0.0,
            sense,
        )
        occupancy.place("pedestrian", track, 0.2)
    for _ in range(rng.poisson(1.5 * density)):
        name = str(rng.choice(("traffic_cone", "barrier", "bicycle", "motorcycle")))
        d = float(rng.choice((-1, 1))) * rng.uniform(street.kerb - street.parking, street.edge)
        occupancy.place(name, Track(rng.uniform(*span), d, rng.uniform(-np.pi, np.pi), parked=True), 0.05)
