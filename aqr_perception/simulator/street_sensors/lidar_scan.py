# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""LiDAR sweeps of a street: echoes by range, material and incidence, weather, and motion during the sweep."""

import numpy as np
from numpy.typing import NDArray

from aqr_perception.simulator.raycasting import SCENERY
from aqr_perception.simulator.rig import LidarMount
from aqr_perception.simulator.sensors import Sweep
from aqr_perception.simulator.street.materials import INDEX, REFLECTIVITY
from aqr_perception.simulator.street.street_scene import StreetScene
from aqr_perception.simulator.street.surfaces import GROUND_REFLECTIVITY, ground_kinds
from aqr_perception.simulator.street.weather import optical_depth
from aqr_perception.simulator.street_sensors.camera_models import ModelledLidar
from aqr_perception.simulator.street_sensors.tracing import StreetTracer, SurfaceHits

_STEPS = 8
"""Poses of the vehicle per sweep, between which poses are interpolated linearly."""
_NEAREST = 1.0
"""Metres within which the sensor sees nothing."""
_TARGET = 0.1
"""Reflectivity for which `ModelledLidar.sensitivity` is given."""
_STEEPNESS = 5.0
"""Steepness of the probability of an echo over the logarithm of its strength."""


def scan_street(
    scene: StreetScene, tracer: StreetTracer, lidar: LidarMount, time: float, rng: np.random.Generator
) -> Sweep:
    """Return the sweep that ends at a time.

    Each column is measured at its own time: from where the vehicle is then, and on objects where they are then. A
    driver that compensates the vehicle's motion gives the points in the LiDAR's frame at the end; the others leave each
    point in the frame of its own time. Objects' own motion stays in both.

    An echo's strength is reflectivity * incidence * exp(-2 * extinction) / range^2, relative to that at the
    sensor's sensitivity; its probability is a logistic function of the logarithm. Rain, fog and dust also return echoes
    themselves, which belong to no object.
    """
    directions = lidar.directions()
    column = np.tile(np.arange(lidar.columns), lidar.beams)
    ages = lidar.period * (1.0 - (np.arange(lidar.columns) + 1) / lidar.columns)
    starts, turns = _poses(scene, lidar, time, ages)
    rays = np.einsum("nij,nj->ni", turns[column], directions)
    origins = starts[column]
    hits = tracer.cast(time, origins, rays)
    rays32, origins32 = rays.astype(np.float32), origins.astype(np.float32)
    hit_points = origins32 + np.where(np.isfinite(hits.distance), hits.distance, 0)[:, None] * rays32
    reflectivity = _reflectivity(scene, hits, hit_points)
    incidence = np.abs(np.einsum("ij,ij->i", hits.normal, rays32))
    incidence = np.where(reflectivity > 1, 1.0, incidence)  # retroreflectors
    depth = optical_depth(scene.weather, origins32, rays32, np.minimum(hits.distance, lidar.reach), lidar=True)
    sensitivity = lidar.sensitivity if isinstance(lidar, ModelledLidar) else 60.0
    surface = reflectivity * (0.3 + 0.7 * incidence) * np.exp(-2 * depth)
    strength = surface / _TARGET * (sensitivity / np.clip(hits.distance, _NEAREST, 1e4)) ** 2
    chance = 1 / (1 + np.clip(strength, 1e-3, 1e3) ** -_STEEPNESS)
    echo = (hits.distance < lidar.reach) & (hits.distance > _NEAREST) & (rng.random(len(rays)) < chance)
    echo &= rng.random(len(rays)) >= lidar.dropout
    echo &= (hits.material != INDEX["glass"]) | (rng.random(len(rays)) < 0.45)
    distance = np.where(echo, hits.distance, np.inf) + rng.normal(0, lidar.noise, len(rays))
    distance, scattered = _backscatter(scene, origins32, rays32, distance, np.minimum(hits.distance, lidar.reach), rng)
    received = np.where(scattered, rng.uniform(0.005, 0.05, len(rays)), surface)
    if isinstance(lidar, ModelledLidar) and lidar.fading:
        received = received * np.clip((25.0 / np.maximum(distance, 5.0)) ** 1.2, 0.05, 2.5)
    intensity = np.clip(255 * received * rng.normal(1.0, 0.08, len(rays)) + rng.normal(0, 1.5, len(rays)), 0, 255)
    kept = np.flatnonzero(np.isfinite(distance) & (distance > _NEAREST))
    owner = np.where(scattered, SCENERY, hits.owner)[kept]
    age = ages[column[kept]]
    world = origins[kept] + distance[kept, None] * rays[kept]
    world += _object_motion(scene, owner, time, age)
    points = _delivered(world, starts, turns, column[kept], lidar)
    return Sweep(np.c_[points, intensity[kept]].astype(np.float32), owner)


def _poses(
    scene: StreetScene, lidar: LidarMount, time: float, ages: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the LiDAR's positions (C, 3) and rotations (C, 3, 3) at the columns' ages."""
    knots = np.linspace(lidar.period, 0.0, _STEPS + 1)
    poses = np.stack([scene.vehicle_to_world(time - age) @ lidar.to_vehicle for age in knots])
    place = np.clip((lidar.period - ages) / lidar.period * _STEPS, 0, _STEPS)
    low = np.minimum(place.astype(int), _STEPS - 1)
    share = (place - low)[:, None, None]
    between = (1 - share) * poses[low] + share * poses[low + 1]
    return between[:, :3, 3], between[:, :3, :3]


def _reflectivity(scene: StreetScene, hits: SurfaceHits, points: NDArray[np.float32]) -> NDArray[np.float32]:
    reflectivity = REFLECTIVITY[hits.material]
    ground = np.flatnonzero((hits.material == INDEX["ground"]) & np.isfinite(hits.distance))
    s, d = scene.street.coordinates(points[ground])
    # Water mirrors the light away.
    reflectivity[ground] = GROUND_REFLECTIVITY[ground_kinds(scene.street, s, d)] * (1 - 0.7 * scene.weather.wetness)
    painted = hits.material == INDEX["paint"]
    # Dark paint returns less.
    reflectivity[painted] *= 0.25 + 1.2 * np.minimum(hits.colour[painted].mean(axis=1), 0.7)
    cloth = (hits.material == INDEX["cloth"]) | (hits.material == INDEX["trousers"])
    reflectivity[cloth] *= 0.4 + 1.5 * np.minimum(hits.colour[cloth].mean(axis=1), 0.6)
    return reflectivity


def _backscatter(
    scene: StreetScene,
    origins: NDArray[np.float32],
    rays: NDArray[np.float32],
    distance: NDArray[np.float64],
    free: NDArray[np.float32],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return ranges with those of the haze's own echoes, mostly near, and a mask of them."""
    weather = scene.weather
    distance = distance.copy()
    scattered = np.zeros(len(rays), bool)
    if weather.lidar_haze > 0.002:
        at = _NEAREST + rng.gamma(1.6, 3.0, len(rays))
        # Brighter surfaces outshine the haze; rays without an echo show it more often.
        share = np.where(np.isfinite(distance), 2.5, 6.0) * weather.lidar_haze
        mask = (rng.random(len(rays)) < np.minimum(share, 0.6)) & (at < free)
        distance[mask], scattered = at[mask], scattered | mask
    for x, y, z, radius, density in weather.puffs.astype(np.float32):
        offset = np.array((x, y, z), np.float32) - origins
        middle = np.einsum("ij,ij->i", rays, offset)
        half = radius**2 - (offset**2).sum(axis=1) + middle**2
        chord = np.sqrt(np.maximum(half, 0))
        depth_in = rng.exponential(1 / (2 * density), len(rays))
        at = np.maximum(middle - chord, _NEAREST) + depth_in
        mask = (half > 0) & (at < middle + chord) & (at < free) & (rng.random(len(rays)) < 0.6)
        distance[mask], scattered = at[mask], scattered | mask
    return distance, scattered


def _object_motion(
    scene: StreetScene, owner: NDArray[np.int64], time: float, age: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the displacement (N, 3) of points from where their objects are at the end to where they were measured."""
    moved = np.zeros((len(owner), 3))
    for track in np.unique(owner[owner >= 0]):
        if scene.actors[track].moving:
            mine = owner == track
            step = 0.05
            velocity = (scene.pose_of(track, time)[:3, 3] - scene.pose_of(track, time - step)[:3, 3]) / step
            moved[mine] = -age[mine, None] * velocity
    return moved


def _delivered(
    world: NDArray[np.float64],
    starts: NDArray[np.float64],
    turns: NDArray[np.float64],
    column: NDArray[np.int64],
    lidar: LidarMount,
) -> NDArray[np.float64]:
    """Return the points (N, 3) in the frame in which the driver delivers them."""
    if not isinstance(lidar, ModelledLidar) or lidar.compensated:
        return np.asarray((world - starts[-1]) @ turns[-1])
    return np.asarray(np.einsum("nji,nj->ni", turns[column], world - starts[column]))
