# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Random rigs of world 2."""

import numpy as np

from aqr_perception.simulator.street_sensors.camera_models import ModelledLidar, draw_rig
from aqr_perception.simulator.street_sensors.lidar_models import LIDAR_MODELS


def test_rigs_have_one_to_six_cameras_every_lidar_and_both_conventions_of_axes() -> None:
    rigs = [draw_rig(seed) for seed in range(150)]
    assert {len(rig.cameras) for rig in rigs} == {1, 2, 3, 4, 5, 6}
    lidars = [rig.lidar for rig in rigs if isinstance(rig.lidar, ModelledLidar)]
    assert {lidar.model for lidar in lidars} == set(LIDAR_MODELS)
    assert 0.35 < np.mean([lidar.forward == "y" for lidar in lidars]) < 0.65
    assert {lidar.compensated for lidar in lidars} == {True, False}
    heights = np.array([lidar.to_vehicle[2, 3] for lidar in lidars])
    assert 1.5 < heights.min() < 1.7 and 2.1 < heights.max() < 2.3
    views = [np.degrees(2 * np.arctan(176 / camera.intrinsics[0, 0])) for rig in rigs for camera in rig.cameras]
    assert min(views) < 60 and max(views) > 85


def test_cameras_look_where_their_names_say_and_are_exposed_when_the_lidar_looks_there() -> None:
    for seed in range(20):
        rig = draw_rig(seed)
        for camera in rig.cameras:
            ahead, left = camera.to_vehicle[:2, 2]
            assert (ahead > 0.2) == ("front" in camera.name) or abs(ahead) < 0.75
            assert ("left" not in camera.name or left > 0.5) and ("right" not in camera.name or left < -0.5)
            turned = (np.arctan2(left, ahead) + np.pi) % (2 * np.pi) / (2 * np.pi)
            assert abs(camera.delay / rig.lidar.period - turned) < 0.02


def test_the_choice_of_axes_changes_nothing_else() -> None:
    one, other = draw_rig(3, forward="x"), draw_rig(3, forward="y")
    assert one.lidar.to_vehicle[:3, 3].tolist() == other.lidar.to_vehicle[:3, 3].tolist()
    np.testing.assert_allclose(one.lidar.to_vehicle[:3, 0], other.lidar.to_vehicle[:3, 1], atol=1e-12)
    for first, second in zip(one.cameras, other.cameras, strict=True):
        np.testing.assert_array_equal(first.to_vehicle, second.to_vehicle)
