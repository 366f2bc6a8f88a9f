# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rendered images and LiDAR sweeps of a scene."""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.simulator.raycasting import Hits, RayCaster
from aqr_perception.simulator.rig import CameraMount, LidarMount
from aqr_perception.simulator.scene import Scene
from aqr_perception.simulator.solids import MATERIALS
from aqr_perception.simulator.texture import textured

_REFLECTIVITY = {  # share of a LiDAR's light that is reflected
    "paint": 0.35, "glass": 0.04, "rubber": 0.05, "metal": 0.4, "light": 0.9, "skin": 0.4, "cloth": 0.25,
    "trousers": 0.15, "plastic": 0.5, "white": 0.8, "asphalt": 0.12, "grass": 0.25, "pavement": 0.22, "wall": 0.35,
    "bark": 0.2, "leaves": 0.3,
}  # fmt: skip
_REFLECTIVITIES = np.array([_REFLECTIVITY[name] for name in MATERIALS] + [0.0])
_GLASS, _PAINT = MATERIALS.index("glass"), MATERIALS.index("paint")
_MIN_REFLECTIVITY = 0.04
"""Lowest reflectivity with an echo at the LiDAR's largest range."""


class RenderedPicture(NamedTuple):
    """An image (H, W, 3) uint8 BGR, and each pixel's owner (H, W) int64: an actor's index or `SCENERY`."""

    image: NDArray[np.uint8]
    owner: NDArray[np.int64]


class Sweep(NamedTuple):
    """Points (N, 4) float32 in the LiDAR's frame with intensity 0..255, and owners (N,) int64 as in an image."""

    points: NDArray[np.float32]
    owner: NDArray[np.int64]


def render_picture(
    scene: Scene, caster: RayCaster, camera: CameraMount, time: float, rng: np.random.Generator, samples: int = 1
) -> RenderedPicture:
    """Return a camera's image at a time.

    Args:
        samples: rays along each edge of a pixel; 2 gives antialiasing.
    """
    width, height = camera.size
    fine = camera.intrinsics.copy()
    fine[:2] *= samples
    rows, columns = np.mgrid[: height * samples, : width * samples]
    pixels = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5, np.ones(columns.size)], axis=1)
    to_world = scene.vehicle_to_world(time) @ camera.to_vehicle
    directions = pixels @ (to_world[:3, :3] @ np.linalg.inv(fine)).T
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    hits = caster.cast(time, to_world[:3, 3], directions)
    light = _shade(scene, caster, time, to_world[:3, 3], directions.astype(np.float32), hits)
    shape = (height * samples, width * samples)
    picture: NDArray[Any] = light.reshape(*shape, 3)
    if samples > 1:
        picture = cv2.resize(picture, camera.size, interpolation=cv2.INTER_AREA)
    picture = picture * scene.lighting.exposure + rng.normal(0, scene.lighting.grain, picture.shape).astype(np.float32)
    # Gamma of displays.
    image = (255 * np.clip(picture, 0, 1) ** (1 / 2.2)).astype(np.uint8)
    return RenderedPicture(image, hits.owner.reshape(shape)[samples // 2 :: samples, samples // 2 :: samples])


def _shade(
    scene: Scene, caster: RayCaster, time: float, origin: NDArray[Any], directions: NDArray[np.float32], hits: Hits
) -> NDArray[np.float32]:
    """Return the light (N, 3) that each ray receives."""
    lighting = scene.lighting
    horizon, zenith = (np.float32(colour) for colour in lighting.sky)
    upward = np.clip(directions[:, 2:], 0, 1) ** 0.5
    light = horizon * (1 - upward) + zenith * upward
    hit = np.flatnonzero(np.isfinite(hits.distance))
    distance, normal = hits.distance[hit, None], hits.normal[hit]
    points = np.float32(origin) + distance * directions[hit]
    colour = textured(hits.colour[hit], hits.material[hit], points, normal, scene.road)
    sun = np.float32(lighting.sun)
    facing = np.clip(normal @ sun, 0, 1)
    facing[caster.shadowed(time, points)] = 0
    from_sky = lighting.skylight * (0.65 + 0.35 * normal[:, 2])
    surface = colour * (from_sky + lighting.sunlight * facing)[:, None]
    shiny = np.flatnonzero((hits.material[hit] == _GLASS) | (hits.material[hit] == _PAINT))
    mirrored = (
        directions[hit[shiny]]
        - 2 * np.einsum("ij,ij->i", directions[hit[shiny]], normal[shiny])[:, None] * normal[shiny]
    )
    surface[shiny] += 0.12 * horizon * np.clip(0.4 + mirrored[:, 2:], 0, 1)
    surface[shiny] += (lighting.sunlight * 0.8 * np.clip(mirrored @ sun, 0, 1) ** 40)[:, None]
    clear = np.exp(-lighting.haze * distance)
    light[hit] = surface * clear + horizon * (1 - clear)
    received: NDArray[np.float32] = light.astype(np.float32)
    return received


def scan(scene: Scene, caster: RayCaster, lidar: LidarMount, time: float, rng: np.random.Generator) -> Sweep:
    """Return the LiDAR's sweep at a time, without the distortion by the vehicle's motion.

    Echoes are lost at random, and on surfaces that are too dark, too far or too oblique. Half of the rays that hit
    glass return no echo.
    """
    directions = lidar.directions()
    to_world = scene.vehicle_to_world(time) @ lidar.to_vehicle
    rays = directions @ to_world[:3, :3].T
    hits = caster.cast(time, to_world[:3, 3], rays)
    oblique = np.abs(np.einsum("ij,ij->i", hits.normal, rays))
    strength = _REFLECTIVITIES[hits.material] * (0.3 + 0.7 * oblique)
    relative = np.clip(hits.distance, 0, lidar.reach) / lidar.reach
    echo = (hits.distance < lidar.reach) & (strength * rng.uniform(0.7, 1.3, len(rays)) > _MIN_REFLECTIVITY * relative)
    echo &= rng.random(len(rays)) >= lidar.dropout
    echo &= (hits.material != _GLASS) | (rng.random(len(rays)) < 0.5)
    distance = hits.distance[echo] + rng.normal(0, lidar.noise, int(echo.sum()))
    points = directions[echo] * distance[:, None]
    intensity = np.clip(255 * strength[echo] + rng.normal(0, 3, len(points)), 0, 255)
    return Sweep(np.c_[points, intensity].astype(np.float32), hits.owner[echo])


class PlainSensors:
    """Pictures and sweeps of a scene of world 1."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._caster = scene, RayCaster(scene)

    def picture(self, camera: CameraMount, time: float, rng: np.random.Generator, samples: int) -> RenderedPicture:
        """Return a camera's image at a time."""
        return render_picture(self._scene, self._caster, camera, time, rng, samples)

    def sweep(self, lidar: LidarMount, time: float, rng: np.random.Generator) -> Sweep:
        """Return the sweep that ends at a time."""
        return scan(self._scene, self._caster, lidar, time, rng)
