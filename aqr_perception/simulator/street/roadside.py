# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Scenery along a street: buildings, fences, vegetation and the things of the pavements."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aqr_perception.simulator.solids import Mesh, merged
from aqr_perception.simulator.street import furniture, vegetation
from aqr_perception.simulator.street.population import Occupancy, Track
from aqr_perception.simulator.street.terrain import Street, ground


class StreetLamps(NamedTuple):
    """Lamp posts at regular distances on one side of the road.

    Attributes:
        first, step: s of a lamp and distance between two, metres.
        d, height: lateral position and height of the lamps.
    """

    first: float
    step: float
    d: float
    height: float


def draw_roadside(
    street: Street, occupancy: Occupancy, lower: float, upper: float, rng: np.random.Generator
) -> tuple[Mesh, StreetLamps]:
    """Return ground and scenery between two s, in the world's frame, where no object is, and the street lamps."""
    side = int(rng.choice((-1, 1)))
    lamps = StreetLamps(
        lower + rng.uniform(0, 20), rng.uniform(22, 38), side * (street.kerb + 0.5), rng.uniform(5.5, 9.0)
    )
    parts = [ground(street, lower - 30, upper + 30)]
    for s in np.arange(lamps.first, upper, lamps.step):
        if _free(street, occupancy, s, lamps.d, 0.3, 0.3):
            parts.append(furniture.street_lamp(rng, lamps.height, -side).moved(street.upright(s, lamps.d, 0.0)))
    for each in (-1, 1):
        parts += _pavement(street, occupancy, each, lower, upper, rng)
        parts += _behind(street, occupancy, each, lower, upper, rng)
    return merged(parts), lamps


def _free(street: Street, occupancy: Occupancy, s: float, d: float, length: float, width: float) -> bool:
    """Reserve a place for static scenery; False on the crossing road or where an object is at any time."""
    reach = length / 2
    clear = all(street.outside_crossing(at) >= 1.0 for at in (s - reach, s, s + reach))
    return clear and occupancy.reserve(Track(s, d), length, width, 0.05)


def _room_for_tree(street: Street, occupancy: Occupancy, s: float, d: float) -> bool:
    """Reserve the place of a trunk where no vehicle reaches into the crown."""
    return occupancy.clear_above(Track(s, d), 5.0, 5.0, 1.7) and _free(street, occupancy, s, d, 0.7, 0.7)


def _pavement(
    street: Street, occupancy: Occupancy, side: int, lower: float, upper: float, rng: np.random.Generator
) -> list[Mesh]:
    """Return signs, bollards, bins and trees in the strip along the kerb."""
    parts: list[Mesh] = []
    trees = rng.random() < 0.4 and street.pavement > 3
    s = lower + rng.uniform(0, 10)
    while s < upper:
        d = side * (street.kerb + 0.55 + rng.uniform(0, 0.25))
        turn = rng.choice((0.0, np.pi / 2)) + rng.normal(0, 0.1)
        if trees and rng.random() < 0.4:
            if _room_for_tree(street, occupancy, s, d):
                parts.append(vegetation.draw_tree(rng).moved(street.upright(s, d, rng.uniform(-np.pi, np.pi))))
        elif rng.random() < 0.04:
            far = side * (street.edge - 1.0)
            if _free(street, occupancy, s, far, 4.2, 1.7):
                parts.append(furniture.shelter(rng).moved(street.upright(s, far, 0.0 if side > 0 else np.pi)))
        elif _free(street, occupancy, s, d, 0.6, 0.6):
            parts.append(furniture.draw_thing(rng).moved(street.upright(s, d, turn)))
        s += rng.exponential(7.0) + 1.5
    return parts


def _behind(
    street: Street, occupancy: Occupancy, side: int, lower: float, upper: float, rng: np.random.Generator
) -> list[Mesh]:
    """Return buildings, fences, hedges, trees and containers beyond the pavement."""
    parts: list[Mesh] = []
    town = float(rng.choice((0.05, 0.5, 0.9)))
    setback, s = rng.uniform(0.6, 7.0), lower
    while s < upper:
        length = rng.uniform(8, 26)
        middle, depth = s + length / 2, rng.uniform(8, 15)
        d = side * (street.edge + setback + rng.uniform(0, 1.5) + depth / 2)
        if rng.random() < town and _free(street, occupancy, middle, d, length, depth):
            house = furniture.building(rng, length, depth)
            parts.append(house.moved(street.upright(middle, d, 0.0 if side > 0 else np.pi)))
        s += length + (rng.exponential(3.0) if rng.random() < 0.6 else 0.2)
    s = lower
    while s < upper:
        length = rng.uniform(3, 14)
        middle, d = s + length / 2, side * (street.edge + rng.uniform(0.35, 0.8))
        if rng.random() < 0.45 and _free(street, occupancy, middle, d, length, 0.8):
            hedge = rng.random() < 0.35
            wall = vegetation.draw_hedge(rng, length) if hedge else furniture.fence(rng, length)
            parts.append(wall.moved(street.upright(middle, d, 0.0 if side > 0 else np.pi)))
        s += length + rng.exponential(4.0)
    thick = float(rng.choice((10.0, 20.0, 45.0)))
    for _ in range(rng.poisson((upper - lower) / thick)):
        s, d = rng.uniform(lower, upper), side * (street.edge + 1.2 + rng.exponential(9.0))
        if _room_for_tree(street, occupancy, s, d):
            parts.append(vegetation.draw_tree(rng).moved(street.upright(s, d, rng.uniform(-np.pi, np.pi))))
    for _ in range(rng.poisson((upper - lower) / 16)):
        s, d = rng.uniform(lower, upper), side * (street.edge + 0.9 + rng.exponential(5.0))
        if _free(street, occupancy, s, d, 1.2, 1.2):
            parts.append(vegetation.draw_bush(rng).moved(street.upright(s, d, rng.uniform(-np.pi, np.pi))))
    for _ in range(rng.poisson((upper - lower) / 120)):
        s, d = rng.uniform(lower, upper), side * (street.edge + 2.5 + rng.exponential(4.0))
        if _free(street, occupancy, s, d, 9.2, 2.7):
            parts.append(furniture.container(rng).moved(street.upright(s, d, rng.normal(0, 0.05))))
    return parts


def lamp_light(lamps: StreetLamps, s: NDArray[np.float64], d: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the brightness (N,) of the ground below the lamps, 1 under a lamp."""
    along = (s - lamps.first + lamps.step / 2) % lamps.step - lamps.step / 2
    across = d - lamps.d + np.sign(lamps.d) * 1.6
    squared = along**2 + across**2 + lamps.height**2
    brightness: NDArray[np.float32] = (lamps.height**3 / squared**1.5).astype(np.float32)
    return brightness
