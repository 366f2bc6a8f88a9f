# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Scenes: a road with scenery, objects of the ten classes in motion, and the vehicle.

The seed determines the whole scene. Each lane has one speed, so traffic does not collide.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import CLASSES
from aqr_perception.simulator.objects import draw_mesh
from aqr_perception.simulator.road import Road
from aqr_perception.simulator.scenery import Lighting, draw_lighting, draw_scenery
from aqr_perception.simulator.solids import Mesh
from aqr_perception.simulator.traffic import PlacedObject, RoadPath, draw_traffic


@dataclass(frozen=True)
class Actor:
    """An object of the scene.

    Attributes:
        label: index into `CLASSES`.
        size: length, width, height in metres.
        mesh: around the centre of its box, +x forward.
    """

    label: int
    size: NDArray[np.float64]
    mesh: Mesh
    path: RoadPath

    def pose(self, road: Road, time: float) -> NDArray[np.float64]:
        """Return the (4, 4) pose, box frame -> world, `time` seconds after the scene's start."""
        return self.path.pose(road, time, self.size[2] / 2)


@dataclass(frozen=True)
class Scene:
    """Road, scenery, moving objects and the vehicle's path.

    Attributes:
        actors: the objects; an object's index is its track.
        scenery: static surfaces, in the world's frame.
        ego: the vehicle's path.
    """

    seed: int
    road: Road
    actors: tuple[Actor, ...]
    scenery: Mesh
    lighting: Lighting
    ego: RoadPath

    def vehicle_to_world(self, time: float) -> NDArray[np.float64]:
        """Return the (4, 4) pose, vehicle frame (on the ground) -> world."""
        return self.ego.pose(self.road, time, 0.0)

    def pose_of(self, track: int, time: float) -> NDArray[np.float64]:
        """Return an object's (4, 4) pose, box frame -> world."""
        return self.actors[track].pose(self.road, time)


def draw_scene(seed: int, duration: float = 20.0) -> Scene:
    """Return the scene of a seed, always the same one.

    Args:
        duration: seconds of the drive that the scene covers.
    """
    rng = np.random.default_rng([0x5CE7E, seed])
    road = Road(rng.choice([0.0, rng.uniform(-0.004, 0.004)]), rng.uniform(-np.pi, np.pi))
    ego, placed = draw_traffic(rng, duration)
    actors = tuple(_actor(entry, rng) for entry in placed)
    lower, upper = ego.s - 90.0, ego.s + max(ego.speed, 0.0) * duration + 90.0
    return Scene(seed, road, actors, draw_scenery(road, lower, upper, rng), draw_lighting(rng), ego)


def _actor(placed: PlacedObject, rng: np.random.Generator) -> Actor:
    return Actor(CLASSES.index(placed.name), placed.size, draw_mesh(placed.name, placed.size, rng), placed.path)
