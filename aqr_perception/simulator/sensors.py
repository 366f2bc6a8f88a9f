"""Pictures and sweeps of a scene."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.simulator.raycasting import Caster, Hits
from aqr_perception.simulator.rig import CameraMount, LidarMount
from aqr_perception.simulator.scene import Scene
from aqr_perception.simulator.solids import MATERIALS
from aqr_perception.simulator.texture import textured

_REFLECTIVITY = {  # share of the light that comes back to a LiDAR
    "paint": 0.35, "glass": 0.04, "rubber": 0.05, "metal": 0.4, "light": 0.9, "skin": 0.4, "cloth": 0.25,
    "trousers": 0.15, "plastic": 0.5, "white": 0.8, "asphalt": 0.12, "grass": 0.25, "pavement": 0.22, "wall": 0.35,
    "bark": 0.2, "leaves": 0.3,
}  # fmt: skip
_REFLECTIVITIES = np.array([_REFLECTIVITY[name] for name in MATERIALS] + [0.0])
_GLASS, _PAINT = MATERIALS.index("glass"), MATERIALS.index("paint")
_FAINTEST = 0.04
"""Reflectivity at the end of the LiDAR's reach below which there is no echo."""


class Picture(NamedTuple):
    """A picture (H, W, 3) uint8 BGR, and by pixel (H, W) int64 whose surface it shows (`SCENERY`: no object's)."""

    image: NDArray[np.uint8]
    owner: NDArray[np.int64]


class Sweep(NamedTuple):
    """Points (N, 4) float32 in the LiDAR's frame at the sweep's time with intensity 0..255; (N,) whose they are."""

    points: NDArray[np.float32]
    owner: NDArray[np.int64]


def photograph(
    scene: Scene, caster: Caster, camera: CameraMount, time: float, rng: np.random.Generator, samples: int = 1
) -> Picture:
    """Return what a camera sees at a time.

    Args:
        samples: rays along each edge of a pixel; 2 makes edges smooth.
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
    light = _lit(scene, caster, time, to_world[:3, 3], directions.astype(np.float32), hits)
    shape = (height * samples, width * samples)
    picture: NDArray = light.reshape(*shape, 3)
    if samples > 1:
        picture = cv2.resize(picture, camera.size, interpolation=cv2.INTER_AREA)
    picture = picture * scene.look.exposure + rng.normal(0, scene.look.grain, picture.shape).astype(np.float32)
    # Displays expect light to the power of 1 / 2.2.
    image = (255 * np.clip(picture, 0, 1) ** (1 / 2.2)).astype(np.uint8)
    return Picture(image, hits.owner.reshape(shape)[samples // 2 :: samples, samples // 2 :: samples])


def _lit(
    scene: Scene, caster: Caster, time: float, origin: NDArray, directions: NDArray[np.float32], hits: Hits
) -> NDArray[np.float32]:
    """Return the light (N, 3) that comes along each ray."""
    look = scene.look
    horizon, zenith = (np.float32(colour) for colour in look.sky)
    upward = np.clip(directions[:, 2:], 0, 1) ** 0.5
    light = horizon * (1 - upward) + zenith * upward
    met = np.flatnonzero(np.isfinite(hits.distance))
    distance, normal = hits.distance[met, None], hits.normal[met]
    points = np.float32(origin) + distance * directions[met]
    colour = textured(hits.colour[met], hits.material[met], points, normal, scene.road)
    sun = np.float32(look.sun)
    facing = np.clip(normal @ sun, 0, 1)
    facing[caster.shadowed(time, points)] = 0
    from_sky = look.skylight * (0.65 + 0.35 * normal[:, 2])
    seen = colour * (from_sky + look.sunlight * facing)[:, None]
    shiny = np.flatnonzero((hits.material[met] == _GLASS) | (hits.material[met] == _PAINT))
    mirrored = (
        directions[met[shiny]]
        - 2 * np.einsum("ij,ij->i", directions[met[shiny]], normal[shiny])[:, None] * normal[shiny]
    )
    seen[shiny] += 0.12 * horizon * np.clip(0.4 + mirrored[:, 2:], 0, 1)
    seen[shiny] += (look.sunlight * 0.8 * np.clip(mirrored @ sun, 0, 1) ** 40)[:, None]
    clear = np.exp(-look.haze * distance)
    light[met] = seen * clear + horizon * (1 - clear)
    return light.astype(np.float32)


def sweep(scene: Scene, caster: Caster, lidar: LidarMount, time: float, rng: np.random.Generator) -> Sweep:
    """Return what the LiDAR measures at a time: the whole turn as if at once, that is, free of the vehicle's motion.

    Echoes are lost by chance, and where a dark surface is too far or too oblique; glass lets half of the rays
    through to nothing.
    """
    directions = lidar.directions()
    to_world = scene.vehicle_to_world(time) @ lidar.to_vehicle
    rays = directions @ to_world[:3, :3].T
    hits = caster.cast(time, to_world[:3, 3], rays)
    oblique = np.abs(np.einsum("ij,ij->i", hits.normal, rays))
    strength = _REFLECTIVITIES[hits.material] * (0.3 + 0.7 * oblique)
    relative = np.clip(hits.distance, 0, lidar.reach) / lidar.reach
    heard = (hits.distance < lidar.reach) & (strength * rng.uniform(0.7, 1.3, len(rays)) > _FAINTEST * relative)
    heard &= rng.random(len(rays)) >= lidar.dropout
    heard &= (hits.material != _GLASS) | (rng.random(len(rays)) < 0.5)
    distance = hits.distance[heard] + rng.normal(0, lidar.noise, int(heard.sum()))
    points = directions[heard] * distance[:, None]
    intensity = np.clip(255 * strength[heard] + rng.normal(0, 3, len(points)), 0, 255)
    return Sweep(np.c_[points, intensity].astype(np.float32), hits.owner[heard])
