# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""From light to an image: rain on its way, glare, exposure, lens and noise."""

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.simulator.rig import CameraMount
from aqr_perception.simulator.street.street_scene import StreetScene
from aqr_perception.simulator.street_sensors.camera_models import RollingCamera

_Floats = NDArray[np.float32]
_MIDDLE = 0.2
"""Mean light that the exposure aims at."""
_GAINS = (0.25, 6.0)
"""Smallest and largest gain of the exposure."""
_ADAPTATION = (0.5, 0.85)
"""Exponents of the exposure in dark and in bright scenes; night stays darker than day."""


def develop(light: _Floats, scene: StreetScene, camera: CameraMount, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the (H, W, 3) uint8 BGR image of the light (H, W, 3) that a camera receives."""
    lens = camera if isinstance(camera, RollingCamera) else RollingCamera(
        camera.name, camera.size, camera.intrinsics, camera.to_vehicle, camera.delay
    )  # fmt: skip
    if scene.weather.rain:
        light = _rain(light, scene.weather.rain, rng)
    light = _glare(light)
    # Bright spots do not darken the whole picture.
    mean = float(np.minimum(light, 1.5).mean())
    exponent = _ADAPTATION[int(mean > _MIDDLE)]
    gain = float(np.clip((_MIDDLE / max(mean, 1e-4)) ** exponent, *_GAINS)) * float(rng.uniform(0.85, 1.18))
    picture = light * gain * np.array(lens.balance, np.float32) * _falloff(light.shape[:2], lens.vignetting)
    picture = np.minimum(picture, 4.0)
    if lens.softness > 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), lens.softness).astype(np.float32, copy=False)
    spread = lens.grain * (0.35 + 0.65 * np.sqrt(max(gain, 1.0))) * np.sqrt(0.15 + np.clip(picture, 0, 1))
    picture = picture + spread * rng.standard_normal(picture.shape, np.float32)
    shoulder = np.where(picture > 0.8, 0.8 + 0.2 * (1 - np.exp(-np.maximum(picture - 0.8, 0) / 0.2)), picture)
    image: NDArray[np.uint8] = (255 * np.clip(shoulder, 0, 1) ** (1 / 2.2)).astype(np.uint8)
    return image


def _glare(light: _Floats) -> _Floats:
    """Return the light with halos around what is far brighter than white: lamps and the sun."""
    bright = np.maximum(light - 1.2, 0)
    if not bright.any():
        return light
    width = light.shape[1]
    near = cv2.GaussianBlur(bright, (0, 0), width / 120)
    coarse = cv2.resize(bright, None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA)
    far = cv2.resize(cv2.GaussianBlur(coarse, (0, 0), 5.0), (width, light.shape[0]), interpolation=cv2.INTER_LINEAR)
    glaring: _Floats = (light + 0.25 * near + 0.5 * far).astype(np.float32)
    return glaring


def _rain(light: _Floats, rate: float, rng: np.random.Generator) -> _Floats:
    """Return the light through falling rain and drops on the lens."""
    height, width = light.shape[:2]
    streaks = np.zeros((height, width), np.float32)
    slant = rng.normal(0, 0.15)
    for _ in range(int(rng.poisson(rate * width * height / 350))):
        x, y, length = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.03, 0.13) * height
        end = (int(x + slant * length), int(y + length))
        cv2.line(streaks, (int(x), int(y)), end, float(rng.uniform(0.05, 0.3)), 1)
    ambient = cv2.blur(light, (31, 31))
    light = light + streaks[..., None] * (0.5 * ambient.mean(axis=(0, 1)) + 0.5 * ambient - 0.3 * light)
    blurred = cv2.GaussianBlur(light, (0, 0), width / 90)
    spots = np.zeros((height, width), np.float32)
    for _ in range(int(rng.poisson(3.0 * rate))):
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        cv2.circle(spots, centre, int(rng.uniform(0.01, 0.045) * width) + 1, 1.0, -1)
    drops = cv2.GaussianBlur(spots, (0, 0), width / 250)[..., None]
    wet: _Floats = (light * (1 - drops) + 1.05 * blurred * drops).astype(np.float32)
    return wet


def _falloff(shape: tuple[int, int], vignetting: float) -> _Floats:
    rows, columns = np.linspace(-1, 1, shape[0], dtype=np.float32), np.linspace(-1, 1, shape[1], dtype=np.float32)
    squared = (0.35 * rows[:, None] ** 2 + columns[None] ** 2) / 1.35
    kept: _Floats = (1 - vignetting * squared)[..., None].astype(np.float32)
    return kept
