# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Streets drawn from a seed: classes, bodies, room for everybody, slopes and light."""

from functools import cache

import numpy as np
import pytest
from helpers.quick_first import quick_first

from aqr_perception.frame import CLASSES
from aqr_perception.geometry import invert, transform_points
from aqr_perception.simulator.objects import draw_size
from aqr_perception.simulator.street.bodies import VARIANTS, draw_body
from aqr_perception.simulator.street.figures import SWING
from aqr_perception.simulator.street.light import draw_light
from aqr_perception.simulator.street.population import EGO_LENGTH, EGO_MIDDLE, EGO_WIDTH
from aqr_perception.simulator.street.street_scene import StreetScene, draw_street_scene
from aqr_perception.simulator.street.terrain import draw_street
from aqr_perception.simulator.street.weather import draw_weather

SEEDS = range(8)


@cache
def scene_of(seed: int) -> StreetScene:
    return draw_street_scene(seed, 2.0)


def test_the_same_seed_gives_the_same_street_and_another_gives_another() -> None:
    first, second, other = draw_street_scene(3, 2.0), scene_of(3), scene_of(4)
    assert [actor.track for actor in first.actors] == [actor.track for actor in second.actors]
    np.testing.assert_array_equal(first.scenery.vertices, second.scenery.vertices)
    np.testing.assert_array_equal(first.actors[0].figure.body.vertices, second.actors[0].figure.body.vertices)
    assert first.street != other.street


@pytest.mark.parametrize("name", CLASSES)
def test_every_body_fills_its_box_and_moving_limbs_stay_inside(name: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(VARIANTS):
        size = draw_size(name, rng)
        figure = draw_body(name, size, rng)
        poses = np.concatenate([figure.posed(angle).vertices for angle in np.linspace(-SWING, SWING, 5)])
        assert (np.abs(poses) <= size / 2 * 1.02 + 0.005).all()
        np.testing.assert_allclose(np.abs(poses).max(axis=0), size / 2, rtol=0.02, atol=0.005)
        assert figure.body.colours.min() >= 0 and figure.body.colours.max() <= 1


def test_limbs_of_walkers_swing_and_those_of_standing_people_do_not() -> None:
    people = [actor for seed in SEEDS for actor in scene_of(seed).actors if CLASSES[actor.label] == "pedestrian"]
    moving, standing = (next(actor for actor in people if actor.moving is wanted) for wanted in (True, False))
    assert np.abs(moving.mesh_at(0.0).vertices - moving.mesh_at(0.3).vertices).max() > 0.05
    np.testing.assert_array_equal(standing.mesh_at(0.0).vertices, standing.mesh_at(0.3).vertices)


def test_streets_show_every_class_standing_and_moving() -> None:
    scenes = [scene_of(seed) for seed in SEEDS]
    assert {actor.label for scene in scenes for actor in scene.actors} == set(range(len(CLASSES)))
    moving = np.mean([actor.moving for scene in scenes for actor in scene.actors])
    assert 0.15 < moving < 0.8


def test_every_weather_and_time_of_day_occurs() -> None:
    rng = np.random.default_rng(2)
    weathers = [draw_weather(rng) for _ in range(80)]
    assert {weather.kind for weather in weathers} == {"clear", "rain", "fog", "dust"}
    lights = [draw_light(rng, weather.murky) for weather in weathers]
    assert {light.time_of_day for light in lights} == {"day", "dusk", "night"}
    for light in lights:
        dark = light.time_of_day == "night"
        assert bool(light.sunlight.max() + light.skylight.max() < 0.05) is dark
        assert light.lamps or light.time_of_day == "day"


@pytest.mark.parametrize("seed", quick_first(SEEDS, quick=3))
def test_nothing_is_inside_an_object_or_the_own_vehicle(seed: int) -> None:
    scene = scene_of(seed)
    for time in (-1.0, 1.0):
        places = [
            (scene.pose_of(index, time), actor.size, actor.mesh_at(time)) for index, actor in enumerate(scene.actors)
        ]
        ego = scene.vehicle_to_world(time)
        ego[:3, 3] += EGO_MIDDLE * ego[:3, 0] + 0.8 * ego[:3, 2]
        places.append((ego, np.array([EGO_LENGTH, EGO_WIDTH, 1.4]), None))
        for index, (pose, size, _) in enumerate(places):
            others = [
                transform_points(other, mesh.vertices)
                for number, (other, _, mesh) in enumerate(places)
                if number != index and mesh is not None and np.hypot(*(other[:2, 3] - pose[:2, 3])) < 14
            ]
            near = np.abs(scene.scenery.vertices - pose[:3, 3]).max(axis=1) < size.max()
            others.append(scene.scenery.vertices[near])
            local = transform_points(invert(pose), np.concatenate(others))
            # The lowest 0.3 m may meet a kerb; bodies are not exactly as wide as their boxes everywhere.
            inside = (np.abs(local[:, :2]) < size[:2] / 2 - 0.12).all(axis=1)
            inside &= (local[:, 2] > -size[2] / 2 + 0.3) & (local[:, 2] < size[2] / 2 - 0.1)
            assert not inside.any(), (index, local[inside])


def test_objects_stand_on_the_ground_also_on_slopes() -> None:
    for seed in SEEDS:
        scene = scene_of(seed)
        for actor in scene.actors:
            pose = actor.pose(scene.street, 1.0)
            foot = pose[:3, 3] - pose[:3, 2] * actor.size[2] / 2
            s, d = scene.street.coordinates(foot[None])
            assert abs(foot[2] - scene.street.height(s, d)[0]) < 0.02
            np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-9)
            assert pose[2, 2] > 0.998  # boxes have no pitch, so slopes are small


def test_poses_follow_the_road_and_its_gradient() -> None:
    street = next(
        street for seed in range(20) if (street := draw_street(np.random.default_rng(seed))).gradient[0] > 0.3
    )
    for s, d in ((-20.0, 1.0), (5.0, -street.edge - 4.0), (40.0, street.kerb + 1.0)):
        here, ahead = street.pose(s, d, 0.0), street.pose(s + 0.01, d, 0.0)
        np.testing.assert_allclose(here[:2, 3], street.road.position(s, d), atol=1e-9)
        assert here[2, 3] == pytest.approx(float(street.height(s, d)), abs=1e-9)
        forward = (ahead[:3, 3] - here[:3, 3]) / np.linalg.norm(ahead[:3, 3] - here[:3, 3])
        np.testing.assert_allclose(here[:3, 0], forward, atol=0.02)


def test_the_kerb_is_a_step_and_ends_at_the_crossing_road() -> None:
    street = next(street for seed in range(20) if (street := draw_street(np.random.default_rng(seed))).crossing)
    assert street.crossing is not None
    away, on = street.crossing[0] + street.crossing[1] + 20, street.crossing[0]
    for s, step in ((away, street.kerb_height), (on, 0.0)):
        rise = street.height(s, street.kerb + 0.1) - street.height(s, street.kerb - 0.1)
        assert float(rise) == pytest.approx(step, abs=1e-6)


def test_construction_vehicles_are_yellow_cones_orange_and_cars_mostly_neither() -> None:
    rng = np.random.default_rng(3)

    def saturated(name: str) -> float:
        """Return the share of bodies whose strongest colour is yellow to orange."""
        count = 0
        for _ in range(40):
            body = draw_body(name, draw_size(name, rng), rng).body
            blue, green, red = body.colours[np.argmax(np.ptp(body.colours, axis=1))]
            count += bool(red > 0.3 and red > green > 0.1 * red and blue < 0.25 * red)
        return count / 40

    assert saturated("construction_vehicle") > 0.9 and saturated("traffic_cone") > 0.9
    assert saturated("pedestrian") < 0.5
