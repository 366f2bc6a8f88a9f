# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Camera images of a street: rolling shutter, light and shadow, wet surfaces, haze, rain, glare and noise."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.simulator.rig import CameraMount
from aqr_perception.simulator.sensors import RenderedPicture
from aqr_perception.simulator.street.light import sky
from aqr_perception.simulator.street.materials import GLOSS, INDEX
from aqr_perception.simulator.street.roadside import lamp_light
from aqr_perception.simulator.street.street_scene import StreetScene
from aqr_perception.simulator.street.surfaces import ground_colours, ground_kinds, patterned
from aqr_perception.simulator.street.weather import optical_depth
from aqr_perception.simulator.street_sensors.camera_models import RollingCamera
from aqr_perception.simulator.street_sensors.exposure import develop
from aqr_perception.simulator.street_sensors.lamplight import glow, headlights
from aqr_perception.simulator.street_sensors.tracing import StreetTracer, SurfaceHits

_Floats = NDArray[np.float32]
_BANDS = 8
"""Bands of rows with one pose of the camera each."""


def render_street(
    scene: StreetScene,
    tracer: StreetTracer,
    camera: CameraMount,
    time: float,
    rng: np.random.Generator,
    samples: int = 1,
) -> RenderedPicture:
    """Return a camera's image whose middle row is exposed at a time.

    The vehicle moves while the rows are read; objects stay where they are at that time.

    Args:
        samples: rays along each edge of a pixel; 2 gives antialiasing.
    """
    width, height = camera.size
    shape = (height * samples, width * samples)
    origins, rays = _rays(scene, camera, time, samples)
    hits = tracer.cast(time, origins, rays)
    light = _radiance(scene, tracer, time, origins, rays, hits).reshape(*shape, 3)
    if samples > 1:
        resized: NDArray[Any] = cv2.resize(light, camera.size, interpolation=cv2.INTER_AREA)
        light = resized.astype(np.float32, copy=False)
    owner = hits.owner.reshape(shape)[samples // 2 :: samples, samples // 2 :: samples]
    return RenderedPicture(develop(light, scene, camera, rng), owner)


def _rays(scene: StreetScene, camera: CameraMount, time: float, samples: int) -> tuple[_Floats, _Floats]:
    """Return origins and unit directions (H * W, 3) of the pixels' rays in the world's frame."""
    width, height = camera.size[0] * samples, camera.size[1] * samples
    to_ray = np.linalg.inv(np.diag([samples, samples, 1.0]) @ camera.intrinsics)
    columns = np.arange(width) + 0.5
    readout = camera.readout if isinstance(camera, RollingCamera) else 0.0
    origins, rays = np.empty((height, width, 3), np.float32), np.empty((height, width, 3), np.float32)
    for rows in np.array_split(np.arange(height), _BANDS if readout else 1):
        delay = (rows.mean() + 0.5) / height - 0.5
        to_world = scene.vehicle_to_world(time + readout * delay) @ camera.to_vehicle
        grid_x, grid_y = np.meshgrid(columns, rows + 0.5)
        pixels = np.stack([grid_x, grid_y, np.ones_like(grid_x)], axis=-1)
        rays[rows] = pixels @ (to_world[:3, :3] @ to_ray).T
        origins[rows] = to_world[:3, 3]
    rays /= np.sqrt((rays**2).sum(axis=-1, keepdims=True))
    return origins.reshape(-1, 3), rays.reshape(-1, 3)


def _radiance(
    scene: StreetScene, tracer: StreetTracer, time: float, origins: _Floats, rays: _Floats, hits: SurfaceHits
) -> _Floats:
    """Return the light (N, 3) that each ray receives."""
    light, weather = scene.light, scene.weather
    received = np.empty_like(rays)
    sees = np.isfinite(hits.distance)
    above, hit = np.flatnonzero(~sees), np.flatnonzero(sees)
    clear = np.exp(-optical_depth(weather, origins, rays, np.minimum(hits.distance, 400.0)))[:, None]
    received[above] = sky(light, rays[above])
    received[hit] = _surfaces(scene, tracer, time, origins[hit], rays[hit], hits, hit)
    air = weather.tint * (0.35 * light.horizon + 0.65 * light.skylight) if weather.kind == "dust" else light.horizon
    ambient = air + 0.05 * light.street_lamp
    blended: _Floats = (received * clear + ambient * (1 - clear)).astype(np.float32)
    return blended


def _surfaces(
    scene: StreetScene,
    tracer: StreetTracer,
    time: float,
    origins: _Floats,
    rays: _Floats,
    hits: SurfaceHits,
    hit: NDArray[np.int64],
) -> _Floats:
    """Return the light (N, 3) from the surfaces that rays hit."""
    light, street = scene.light, scene.street
    material, normal, owner = hits.material[hit], hits.normal[hit], hits.owner[hit]
    points = origins + hits.distance[hit, None] * rays
    colour, windows = patterned(hits.colour[hit], material, points, normal, light.lamps and light.time_of_day != "day")
    is_ground = material == INDEX["ground"]
    ground = np.flatnonzero(is_ground)
    s, d = street.coordinates(points[ground])
    colour[ground] = ground_colours(street, points[ground], s, d, ground_kinds(street, s, d))
    colour[ground] *= 1 - 0.45 * scene.weather.wetness
    arriving = _arriving(scene, tracer, time, points, normal)
    surface = colour * arriving
    gloss = GLOSS[material]
    gloss[ground] = 0.06 * scene.weather.wetness
    shiny = np.flatnonzero(gloss > 0.005)
    against = np.einsum("ij,ij->i", rays[shiny], normal[shiny])[:, None]
    mirrored = rays[shiny] - 2 * against * normal[shiny]
    # Schlick's approximation; a rough wet road mirrors less at grazing angles than glass.
    grazing = np.where(is_ground[shiny], 0.45 * scene.weather.wetness, 0.9)[:, None]
    fresnel = gloss[shiny, None] + (grazing - gloss[shiny, None]) * (1 - np.abs(against)) ** 5
    open_sky = np.clip((mirrored[:, 2:] - 0.02) / 0.2, 0, 1)
    surroundings = open_sky * sky(light, mirrored, with_sun=False) + (1 - open_sky) * 0.35 * light.skylight
    if light.disc:
        highlight = np.clip(mirrored @ light.sun.astype(np.float32), 0, 1) ** 200
        surroundings = surroundings + 6.0 * highlight[:, None] * light.sunlight
    surface[shiny] = surface[shiny] * (1 - fresnel) + fresnel * surroundings
    surface += windows[:, None] * np.array((0.5, 0.8, 1.0), np.float32)
    lamps = np.flatnonzero(np.isin(material, _LAMPS))
    surface[lamps] += glow(scene, time, material[lamps], owner[lamps], colour[lamps])
    lit: _Floats = surface
    return lit


_LAMPS = [INDEX[name] for name in ("headlamp", "tail", "brake", "beacon", "streetlamp")]


def _arriving(scene: StreetScene, tracer: StreetTracer, time: float, points: _Floats, normal: _Floats) -> _Floats:
    """Return the light (N, 3) that arrives at surfaces: sky, sun with shadows, street lamps, headlights."""
    light = scene.light
    openness = 0.6 + 0.4 * normal[:, 2:]
    arriving = light.skylight * openness
    if light.time_of_day != "night":
        bright = float(light.sunlight.max()) > 0.08
        # Under clouds a ray to the zenith darkens what lies below vehicles and trees.
        towards = light.sun if bright else np.array([0.0, 0.0, 1.0])
        dark = tracer.shadowed(time, points, normal, towards)
        arriving = arriving * np.where(dark, 0.75 if bright else 0.45, 1.0)[:, None].astype(np.float32)
        if bright:
            facing = np.clip(normal @ light.sun.astype(np.float32), 0, 1)
            facing[dark] = 0
            arriving = arriving + facing[:, None] * light.sunlight
    if light.street_lamp.any():
        s, d = scene.street.coordinates(points)
        shine = lamp_light(scene.lamps, s, d) * (0.35 + 0.65 * np.clip(normal[:, 2], 0, 1))
        arriving = arriving + shine[:, None] * light.street_lamp
    if light.lamps and light.time_of_day != "day":
        arriving = arriving + headlights(scene, time, points, normal)
    received: _Floats = np.asarray(arriving, np.float32)
    return received
