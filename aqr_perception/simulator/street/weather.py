# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Weather: clear, rain, fog and dust, as extinction and clouds that pictures and LiDARs share."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["clear", "rain", "fog", "dust"]
_Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Weather:
    """Weather of a scene.

    Attributes:
        haze: extinction of the light everywhere, 1/m, for cameras.
        lidar_haze: extinction of a LiDAR's light, 1/m.
        rain: rain rate, 0 to 1 (violent).
        wetness: 0 (dry) to 1: surfaces are darker and mirror more.
        puffs: (P, 5) clouds of dust or spray: centre in the world's frame, radius, extinction inside, 1/m.
        tint: colour (3,) BGR of the haze relative to the sky's light; brown for dust.
    """

    kind: Kind
    haze: float
    lidar_haze: float
    rain: float
    wetness: float
    puffs: NDArray[np.float64]
    tint: _Floats

    @property
    def murky(self) -> float:
        """Share of the sunlight that the weather takes away."""
        return {"clear": 0.0, "rain": 0.75, "fog": 0.8, "dust": 0.35}[self.kind]


def draw_weather(rng: np.random.Generator, kind: Kind | None = None) -> Weather:
    """Return random weather without clouds of dust; see `with_puffs`."""
    chosen = kind or ("clear", "rain", "fog", "dust")[int(rng.choice(4, p=(0.62, 0.18, 0.11, 0.09)))]
    white, no_puffs = np.ones(3, np.float32), np.zeros((0, 5))
    if chosen == "rain":
        rain = float(rng.uniform(0.1, 1.0))
        return Weather(
            "rain", 0.002 + 0.01 * rain, 0.004 + 0.012 * rain, rain, float(rng.uniform(0.6, 1.0)), no_puffs, white
        )
    if chosen == "fog":
        haze = 3.0 / float(np.exp(rng.uniform(np.log(40), np.log(250))))  # visibility 40 to 250 m
        return Weather("fog", haze, 0.7 * haze, 0.0, float(rng.uniform(0, 0.5)), no_puffs, white)
    if chosen == "dust":
        haze = float(rng.uniform(0.004, 0.02))
        return Weather("dust", haze, 0.8 * haze, 0.0, 0.0, no_puffs, np.array((0.55, 0.8, 1.0), np.float32))
    wet = float(rng.uniform(0.3, 1.0)) if rng.random() < 0.1 else 0.0
    return Weather("clear", float(rng.uniform(0.0005, 0.004)), 0.0005, 0.0, wet, no_puffs, white)


def optical_depth(
    weather: Weather, origins: _Floats, directions: _Floats, distance: _Floats, *, lidar: bool = False
) -> _Floats:
    """Return the extinction (N,) along rays of these lengths, in the haze and through the puffs.

    Args:
        origins: (N, 3) or (3,), world frame.
        directions: (N, 3) unit vectors.
    """
    depth = np.float32(weather.lidar_haze if lidar else weather.haze) * distance
    for x, y, z, radius, density in weather.puffs.astype(np.float32):
        offset = np.array((x, y, z), np.float32) - origins
        middle = np.einsum("...j,...j->...", directions, np.broadcast_to(offset, directions.shape))
        half = np.sqrt(np.maximum(radius**2 - (offset**2).sum(axis=-1) + middle**2, 0))
        inside = np.clip(middle + half, 0, distance) - np.clip(middle - half, 0, distance)
        depth = depth + density * inside
    passed: _Floats = depth.astype(np.float32)
    return passed
