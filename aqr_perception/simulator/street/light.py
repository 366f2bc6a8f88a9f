# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Light of a street: sun, sky and lamps by day, at dusk and at night."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

TimeOfDay = Literal["day", "dusk", "night"]
_TIMES: tuple[TimeOfDay, ...] = ("day", "dusk", "night")
_Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Light:
    """Light of a scene; colours are BGR, linear.

    Attributes:
        sun: (3,) unit vector towards the sun; overcast skies have it, too, for soft shadows.
        sunlight, skylight: colours (3,) of the direct and the diffuse light.
        horizon, zenith: colours (3,) of the sky.
        clouds: share of the sky that clouds cover, 0..1.
        disc: brightness of the visible sun; 0 when clouds hide it.
        lamps: whether vehicles' and streets' lamps are on.
        street_lamp: colour (3,) of the street lamps' light; 0 if they are off.
    """

    time_of_day: TimeOfDay
    sun: NDArray[np.float64]
    sunlight: _Floats
    skylight: _Floats
    horizon: _Floats
    zenith: _Floats
    clouds: float
    disc: float
    lamps: bool
    street_lamp: _Floats


def draw_light(rng: np.random.Generator, murky: float, time_of_day: TimeOfDay | None = None) -> Light:
    """Return random light.

    Args:
        murky: share of the sunlight that rain, fog or dust takes away.
        time_of_day: random if None: mostly day, a quarter night.
    """
    chosen: TimeOfDay = time_of_day or _TIMES[int(rng.choice(3, p=(0.62, 0.15, 0.23)))]
    lowest, highest = {"day": (14, 68), "dusk": (1.5, 11), "night": (20, 60)}[chosen]
    azimuth, height = rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(lowest, highest))
    sun = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
    clouds = max(rng.beta(0.8, 1.1), murky)
    direct = (1 - clouds) ** 1.5
    if chosen == "day":
        sunlight = 1.9 * direct * np.array((0.82, 0.94, 1.0))
        horizon = (1 - clouds) * np.array((0.98, 0.8, 0.64)) + clouds * np.array((0.6, 0.57, 0.55))
        zenith = (1 - clouds) * np.array((0.8, 0.48, 0.24)) + clouds * np.array((0.56, 0.55, 0.54))
        skylight = (0.42 + 0.3 * clouds) * ((1 - clouds) * np.array((1.25, 1.0, 0.85)) + clouds)
    elif chosen == "dusk":
        sunlight = 0.9 * direct * np.array((0.28, 0.6, 1.0))
        horizon = (1 - clouds) * np.array((0.28, 0.42, 0.68)) + clouds * np.array((0.3, 0.29, 0.29))
        zenith = (1 - clouds) * np.array((0.33, 0.2, 0.13)) + clouds * np.array((0.2, 0.19, 0.19))
        skylight = 0.22 * np.array((1.2, 1.0, 0.95))
    else:
        moon = rng.uniform(0.001, 0.012)
        sunlight = np.zeros(3)
        horizon = rng.uniform(0.002, 0.012) * np.array((0.8, 0.9, 1.1))  # the town's glow
        zenith = 0.3 * horizon
        skylight = moon * np.array((1.1, 1.0, 0.9))
    lit = (chosen == "night" and rng.random() < 0.8) or (chosen == "dusk" and rng.random() < 0.5)
    warm = np.array((0.55, 0.8, 1.0)) if rng.random() < 0.6 else np.array((1.0, 0.98, 0.92))
    return Light(
        chosen,
        sun,
        np.asarray(sunlight, np.float32),
        np.asarray(skylight, np.float32),
        np.asarray(horizon, np.float32),
        np.asarray(zenith, np.float32),
        clouds=float(clouds),
        disc=float(60.0 * direct) if chosen != "night" and clouds < 0.75 else 0.0,
        lamps=bool(chosen != "day" or murky > 0.3 or rng.random() < 0.25),
        street_lamp=np.asarray(rng.uniform(0.25, 0.8) * warm if lit else np.zeros(3), np.float32),
    )


def sky(light: Light, directions: _Floats, with_sun: bool = True) -> _Floats:
    """Return the sky's light (N, 3) in unit directions (N, 3), with soft clouds and the sun's disc and halo."""
    upward = np.clip(directions[:, 2:], 0, 1) ** 0.5
    colour = light.horizon * (1 - upward) + light.zenith * upward
    if light.time_of_day != "night" and light.clouds > 0.1:
        plane = directions[:, :2] / np.maximum(directions[:, 2:], 0.06)
        waves = np.sin(plane[:, 0] * 1.7 + np.sin(plane[:, 1] * 1.3)) * np.sin(
            plane[:, 1] * 1.9 + np.sin(plane[:, 0] * 0.7)
        )
        veil = np.clip(0.5 + 0.5 * waves + (light.clouds - 0.6), 0, 1)[:, None] * upward
        colour = colour + veil * (light.skylight * 1.1 - colour) * 0.7
    if with_sun and light.disc:
        angle = np.clip(directions @ light.sun.astype(np.float32), 0, 1)[:, None]
        tint = light.sunlight / max(float(light.sunlight.max()), 1e-6)
        colour = colour + tint * (light.disc * (angle > 0.9992) + 0.012 * light.disc * angle**180 + 0.3 * angle**12)
    received: _Floats = colour.astype(np.float32)
    return received
