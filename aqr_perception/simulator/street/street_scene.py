# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Scenes of world 2: street, scenery, traffic, light and weather of a seed."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import CLASSES
from aqr_perception.simulator.solids import Mesh
from aqr_perception.simulator.street.bodies import draw_body
from aqr_perception.simulator.street.figures import SWING, Figure
from aqr_perception.simulator.street.light import Light, TimeOfDay, draw_light
from aqr_perception.simulator.street.population import Placed, Track, draw_traffic
from aqr_perception.simulator.street.roadside import StreetLamps, draw_roadside
from aqr_perception.simulator.street.terrain import Street, draw_street
from aqr_perception.simulator.street.weather import Kind, Weather, draw_weather


@dataclass(frozen=True)
class StreetActor:
    """An object of the scene.

    Attributes:
        label: index into `CLASSES`.
        size: length, width, height in metres.
        figure: body around the centre of its box, +x forward.
        stride: metres of a pair of steps.
    """

    label: int
    size: NDArray[np.float64]
    figure: Figure
    track: Track
    stride: float

    @property
    def moving(self) -> bool:
        """Whether the object's pose or shape changes."""
        return self.track.pace is not None and self.track.pace.mean > 0

    def pose(self, street: Street, time: float) -> NDArray[np.float64]:
        """Return the (4, 4) pose, box frame -> world, `time` seconds after the scene's start."""
        s, d = self.track.place(time)
        pose = street.pose(float(s), float(d), self.track.turn)
        pose[:3, 3] += pose[:3, 2] * self.size[2] / 2
        return pose

    def mesh_at(self, time: float) -> Mesh:
        """Return the mesh with the limbs as they are at a time."""
        if not self.moving or self.track.pace is None:
            return self.figure.posed(0.15 * SWING)
        phase = 2 * np.pi * float(self.track.pace.distance(time)) / self.stride
        return self.figure.posed(SWING * float(np.sin(phase)))


@dataclass(frozen=True)
class StreetScene:
    """Street, scenery, objects, light, weather and the vehicle's motion.

    Attributes:
        actors: the objects; an object's index is its track.
        scenery: static surfaces, in the world's frame.
        ego: the vehicle's motion.
    """

    seed: int
    street: Street
    actors: tuple[StreetActor, ...]
    scenery: Mesh
    lamps: StreetLamps
    light: Light
    weather: Weather
    ego: Track

    def vehicle_to_world(self, time: float) -> NDArray[np.float64]:
        """Return the (4, 4) pose, vehicle frame (on the ground) -> world."""
        s, d = self.ego.place(time)
        return self.street.pose(float(s), float(d), self.ego.turn)

    def pose_of(self, track: int, time: float) -> NDArray[np.float64]:
        """Return an object's (4, 4) pose, box frame -> world."""
        return self.actors[track].pose(self.street, time)


def draw_street_scene(
    seed: int, duration: float = 20.0, *, time_of_day: TimeOfDay | None = None, weather: Kind | None = None
) -> StreetScene:
    """Return the scene of a seed, always the same one; time of day and weather can be fixed.

    Args:
        duration: seconds of the drive that the scene covers.
    """
    layout, air, sunlight, bodies, roadside, dust = (np.random.default_rng([0x57EE7, seed, part]) for part in range(6))
    street = draw_street(layout)
    ego, occupancy = draw_traffic(street, layout, duration)
    scene_weather = draw_weather(air, weather)
    light = draw_light(sunlight, scene_weather.murky, time_of_day)
    end = float(ego.place(duration)[0])
    scenery, lamps = draw_roadside(street, occupancy, -100.0, end + 100.0, roadside)
    actors = tuple(_actor(placed, bodies) for placed in occupancy.placed)
    scene_weather = replace(scene_weather, puffs=_puffs(scene_weather, street, end, dust))
    return StreetScene(seed, street, actors, scenery, lamps, light, scene_weather, ego)


def _actor(placed: Placed, rng: np.random.Generator) -> StreetActor:
    figure = draw_body(placed.name, placed.size, rng)
    return StreetActor(CLASSES.index(placed.name), placed.size, figure, placed.track, float(rng.uniform(1.2, 1.6)))


def _puffs(weather: Weather, street: Street, end: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return clouds of dust, or of spray in rain, near the road."""
    count = {"dust": int(rng.integers(2, 7)), "rain": int(rng.integers(0, 3))}.get(weather.kind, 0)
    puffs = np.zeros((count, 5))
    for puff in puffs:
        s, d = rng.uniform(-30, end + 50), rng.uniform(-street.edge - 3, street.edge + 3)
        puff[:2], puff[2] = street.road.position(s, d), float(street.height(s, d)) + rng.uniform(0.3, 1.5)
        puff[3] = rng.uniform(1.5, 6.0)
        puff[4] = rng.uniform(0.03, 0.3) * (1.0 if weather.kind == "dust" else 0.3)
    return puffs
