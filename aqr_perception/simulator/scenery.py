# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Static scenery (ground, buildings, poles and trees) and lighting of a scene."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aqr_perception.simulator.road import Road
from aqr_perception.simulator.solids import Mesh, box, cylinder, ellipsoid, merged
from aqr_perception.simulator.traffic import KERB, PAVEMENT


@dataclass(frozen=True)
class Lighting:
    """Lighting of a scene, and the cameras' response to it.

    Attributes:
        sun: (3,) unit vector towards the sun.
        sunlight, skylight: intensity of direct and of diffuse light.
        sky: BGR at the horizon and overhead, 0..1.
        haze: extinction towards the horizon's colour, 1/m.
        exposure: gain of the cameras.
        grain: standard deviation of the images' noise, 0..1.
    """

    sun: NDArray[np.float64]
    sunlight: float
    skylight: float
    sky: tuple[NDArray[np.float64], NDArray[np.float64]]
    haze: float
    exposure: float
    grain: float


def draw_lighting(rng: np.random.Generator) -> Lighting:
    """Return random lighting: sunny to cloudy, bright or dim."""
    azimuth, height = rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(15, 70))
    sun = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
    cloud = rng.uniform(0, 1)
    brightness = rng.choice([1.0, rng.uniform(0.25, 0.6)], p=[0.8, 0.2])
    horizon = np.array([0.88, 0.86, 0.82]) * brightness
    zenith = ((1 - cloud) * np.array([0.85, 0.6, 0.35]) + cloud * np.array([0.75, 0.74, 0.72])) * brightness
    return Lighting(
        sun,
        sunlight=float((1 - 0.8 * cloud) * brightness),
        skylight=float((0.55 + 0.3 * cloud) * brightness),
        sky=(horizon, zenith),
        haze=float(rng.uniform(0.001, 0.006)),
        exposure=float(rng.uniform(0.85, 1.2) / brightness**0.7),
        grain=float(rng.uniform(0.005, 0.03)),
    )


def draw_scenery(road: Road, lower: float, upper: float, rng: np.random.Generator) -> Mesh:
    """Return the ground and the scenery along a stretch of road, in the world's frame.

    The ground is flat; `texture` paints pavement, lanes and grass on it.
    """
    parts = [_ground(road, (lower + upper) / 2)]
    for side in (-1, 1):
        s = lower
        built = rng.choice([0.15, 0.6, 0.9])
        while s < upper:
            length = rng.uniform(8, 26)
            if rng.random() < built:
                depth, height = rng.uniform(8, 16), rng.uniform(4, 22)
                d = side * (KERB + PAVEMENT + rng.uniform(0.5, 7) + depth / 2)
                colour = rng.uniform(0.25, 0.75) * np.array([0.85, 0.95, 1.05]) + rng.normal(0, 0.05, 3)
                building = box((0, 0, height / 2), (length, depth, height), "wall").painted(
                    {"wall": np.clip(colour, 0.05, 1)}
                )
                parts.append(building.moved(_pose_at(road, s + length / 2, d)))
            s += length + rng.exponential(4.0)
        for at in np.arange(lower, upper, rng.uniform(18, 32)):
            parts.append(_pole(rng).moved(_pose_at(road, at + rng.normal(0, 2), side * (KERB + PAVEMENT + 0.3))))
        for at in np.arange(lower, upper, rng.uniform(8, 40)):
            d = side * (KERB + PAVEMENT + rng.uniform(1.5, 5))
            parts.append(_tree(rng).moved(_pose_at(road, at + rng.normal(0, 3), d)))
    return merged(parts)


def _pose_at(road: Road, s: float, d: float) -> NDArray[np.float64]:
    heading = float(road.direction(s))
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(heading), -np.sin(heading)], [np.sin(heading), np.cos(heading)]]
    pose[:2, 3] = road.position(s, d)
    return pose


def _ground(road: Road, middle: float) -> Mesh:
    x, y = road.position(middle, 0.0)
    return box((x, y, -0.5), (900.0, 900.0, 1.0), "asphalt")


def _pole(rng: np.random.Generator) -> Mesh:
    height = rng.uniform(4, 8)
    post = cylinder((0, 0, 0), (0, 0, height), rng.uniform(0.07, 0.14), "metal", 8)
    if rng.random() < 0.5:
        return merged([post, box((0.5, 0, height), (1.4, 0.2, 0.12), "metal")])
    return merged([post, box((0, 0, min(height, 3.0)), (0.05, 0.6, 0.6), "white")])


def _tree(rng: np.random.Generator) -> Mesh:
    trunk, crown = rng.uniform(1.5, 3), rng.uniform(1.2, 2.4)
    green = np.array([0.14, 0.32, 0.18]) * rng.uniform(0.6, 1.5)
    leaves = ellipsoid((0, 0, trunk + crown * 0.8), (crown, crown, crown * 1.2), "leaves").painted({"leaves": green})
    return merged([cylinder((0, 0, 0), (0, 0, trunk), rng.uniform(0.1, 0.25), "bark", 8), leaves])
