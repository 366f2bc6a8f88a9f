# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Scenes drawn from a seed: sizes, classes and placement of their objects."""

import numpy as np
import pytest

from aqr_perception.frame import CLASSES
from aqr_perception.simulator.objects import KINDS, draw_mesh, draw_size
from aqr_perception.simulator.scene import Scene, draw_scene


def test_the_same_seed_gives_the_same_scene_and_another_gives_another() -> None:
    first, second, other = draw_scene(5, 1.0), draw_scene(5, 1.0), draw_scene(6, 1.0)
    assert [actor.path for actor in first.actors] == [actor.path for actor in second.actors]
    np.testing.assert_array_equal(first.scenery.vertices, second.scenery.vertices)
    np.testing.assert_array_equal(first.lighting.sun, second.lighting.sun)
    assert [actor.path for actor in first.actors] != [actor.path for actor in other.actors]


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_fills_its_box_and_its_size_is_near_the_mean(name: str) -> None:
    rng = np.random.default_rng(1)
    sizes = np.array([draw_size(name, rng) for _ in range(200)])
    np.testing.assert_allclose(sizes.mean(axis=0), KINDS[name].size, rtol=0.05)
    mesh = draw_mesh(name, sizes[0], rng)
    np.testing.assert_allclose(mesh.vertices.min(axis=0), -sizes[0] / 2, atol=1e-3)
    np.testing.assert_allclose(mesh.vertices.max(axis=0), sizes[0] / 2, atol=1e-3)
    assert mesh.colours.min() >= 0 and mesh.colours.max() <= 1


@pytest.mark.slow
def test_scenes_range_from_empty_to_crowded_and_show_every_class() -> None:
    scenes = [draw_scene(seed, 1.0) for seed in range(40)]
    counts = [len(scene.actors) for scene in scenes]
    assert min(counts) < 3 and max(counts) > 60
    assert {actor.label for scene in scenes for actor in scene.actors} == set(range(len(CLASSES)))
    speeds = [np.hypot(actor.path.speed, actor.path.sideways) for scene in scenes for actor in scene.actors]
    assert 0.2 < np.mean(np.array(speeds) > 0.3) < 0.8


@pytest.mark.parametrize("seed", range(6))
def test_objects_do_not_overlap_and_vehicles_do_not_collide(seed: int) -> None:
    scene = draw_scene(seed, 20.0)
    assert _closest_overlap(scene, list(range(len(scene.actors))), 0.0) < 0.05
    lanes = [
        index
        for index, actor in enumerate(scene.actors)
        if actor.path.sideways == 0 and CLASSES[actor.label] in ("car", "truck", "bus", "trailer")
    ]
    assert _closest_overlap(scene, lanes, 12.0) < 0.05


def _closest_overlap(scene: Scene, indices: list[int], time: float) -> float:
    """Return the largest overlap of two objects' footprints, in road coordinates, metres."""
    places = []
    for index in indices:
        actor = scene.actors[index]
        s = actor.path.s + actor.path.speed * time
        d = actor.path.d + actor.path.sideways * time
        cos, sin = abs(np.cos(actor.path.turn)), abs(np.sin(actor.path.turn))
        length, width = actor.size[:2]
        places.append((s, d, (length * cos + width * sin) / 2, (length * sin + width * cos) / 2))
    deepest = -np.inf
    for first, (s, d, half_s, half_d) in enumerate(places):
        for other_s, other_d, other_half_s, other_half_d in places[:first]:
            depth = min(half_s + other_half_s - abs(s - other_s), half_d + other_half_d - abs(d - other_d))
            deepest = max(deepest, depth)
    return deepest
