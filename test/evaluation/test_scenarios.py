# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sensor failures of the robustness table."""

import dataclasses

import numpy as np
import pytest
from helpers.failing_frames import apply
from helpers.scanned_frame import NAMES, labelled_frame, points_of

from aqr_perception.evaluation.scenarios import ALL_SCENARIOS, SCENARIOS, chosen, generator, needs_earlier, usable


@pytest.mark.parametrize("name", ALL_SCENARIOS)
def test_scenarios_are_repeatable_and_change_neither_input_nor_objects(name: str) -> None:
    labelled = labelled_frame()
    for array in (points_of(labelled), *(view.image for view in labelled.frame.cameras), labelled.truth.lidar_points):
        array.setflags(write=False)
    first, second = apply(name, labelled), apply(name, labelled)
    assert np.array_equal(first.truth.boxes, labelled.truth.boxes)
    assert np.array_equal(first.frame.points, second.frame.points) or first.frame.points is second.frame.points is None
    assert [view.name for view in first.frame.cameras] == [view.name for view in second.frame.cameras]
    for one, other in zip(first.frame.cameras, second.frame.cameras, strict=True):
        assert np.array_equal(one.image, other.image)
    assert (first is labelled) == (name in ("clean", "cameras late by 0.5 s"))  # without an earlier frame


@pytest.mark.parametrize("name", ALL_SCENARIOS)
@pytest.mark.parametrize(("lidar", "cameras", "objects"), [(False, 6, 3), (True, 0, 3), (False, 0, 0), (True, 6, 0)])
def test_scenarios_accept_frames_without_some_sensors_or_objects(
    name: str, lidar: bool, cameras: int, objects: int
) -> None:
    failing = apply(name, labelled_frame(lidar=lidar, cameras=cameras, objects=objects))
    assert len(failing.truth) == objects
    assert failing.truth.visibility.shape == (objects, len(failing.frame.cameras))


def test_four_beams_near_the_horizon_remain() -> None:
    labelled = labelled_frame()
    points = points_of(apply("4 beams", labelled))
    assert len(points) == pytest.approx(len(points_of(labelled)) * 4 / 32, rel=0.02)
    elevations = np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
    assert np.allclose(np.unique(elevations.round(1)), [-5.3, -2.7, 0.0, 2.7], atol=0.11)


def test_a_missing_lidar_leaves_the_cameras() -> None:
    failing = apply("LiDAR gone", labelled_frame())
    assert failing.frame.points is None
    assert len(failing.frame.cameras) == 6
    assert not failing.truth.lidar_points.any()


def test_the_field_of_view_is_60_degrees_on_either_side_of_forward() -> None:
    points = points_of(apply("LiDAR field of view +-60 degrees", labelled_frame()))
    off_front = np.degrees(np.abs(np.arctan2(points[:, 0], points[:, 1])))
    assert 55 < off_front.max() <= 60.001


def test_half_of_the_objects_lose_their_points() -> None:
    lost = []
    for seed in range(12):
        labelled = labelled_frame(seed)
        assert (labelled.truth.lidar_points > 0).all()
        left = apply("half the objects without points", labelled).truth.lidar_points
        assert ((left == 0) | (left == labelled.truth.lidar_points)).all()
        lost.append(int((left == 0).sum()))
    assert set(lost) == {3, 4}


def test_all_cameras_or_one_camera_fail() -> None:
    assert apply("all cameras gone", labelled_frame()).frame.cameras == ()
    gone = set()
    for seed in range(20):
        left = {view.name for view in apply("one camera gone", labelled_frame(seed)).frame.cameras}
        assert len(left) == 5
        gone |= set(NAMES) - left
    assert len(gone) > 3


def test_half_of_each_image_is_dark_and_the_other_half_unchanged() -> None:
    labelled = labelled_frame()
    failing = apply("half of each image occluded", labelled)
    assert len(failing.frame.cameras) == 6
    for view, before in zip(failing.frame.cameras, labelled.frame.cameras, strict=True):
        same = (view.image == before.image).all(axis=(0, 2))
        assert same[:27].all() != same[29:].all()
        assert (view.image[:, ~same].mean(axis=(0, 2)) < 100).sum() >= 27


def test_random_numbers_depend_on_scenario_frame_and_seed() -> None:
    labelled = labelled_frame()
    draws = {
        generator("clean", labelled, 0).random(),
        generator("4 beams", labelled, 0).random(),
        generator("clean", labelled, 1).random(),
        generator("clean", labelled_frame(1), 0).random(),
        generator("clean", labelled_frame(objects=6), 0).random(),
    }
    assert len(draws) == 5
    assert generator("clean", labelled, 0).random() in draws


@pytest.mark.parametrize("name", ALL_SCENARIOS)
def test_every_sensor_that_a_scenario_changes_loses_health_where_it_fails(name: str) -> None:
    labelled, earlier = labelled_frame(objects=3), labelled_frame(1)
    earlier = dataclasses.replace(earlier, frame=dataclasses.replace(earlier.frame, stamp_ns=5 * 10**8))
    scenario = ALL_SCENARIOS[name]
    failing = scenario.with_health(labelled, generator(name, labelled, 0), earlier)
    assert scenario.description
    assert (failing.health.lidar.min() < 1) == (failing.labelled.frame.points is not labelled.frame.points)
    left = {view.name: view for view in failing.labelled.frame.cameras}
    for view in labelled.frame.cameras:
        intact = view.name in left and left[view.name] is view
        assert intact == (view.name not in failing.health.cameras)
        if not intact:
            assert failing.health.cameras[view.name].min() < 1


def test_misaligned_and_late_sensors_keep_their_data_and_at_most_half_of_their_health() -> None:
    labelled, earlier = labelled_frame(), labelled_frame(1)
    earlier = dataclasses.replace(earlier, frame=dataclasses.replace(earlier.frame, stamp_ns=5 * 10**8))
    cases = (("cameras turned by 3 degrees", 0.5), ("cameras turned by 8 degrees", 0.2))
    for name, most in cases:
        failing = ALL_SCENARIOS[name].with_health(labelled, generator(name, labelled, 0), None)
        for view, before in zip(failing.labelled.frame.cameras, labelled.frame.cameras, strict=True):
            assert view.image is before.image and failing.health.cameras[view.name].max() <= most
    name = "LiDAR shifted by 2 m"
    failing = ALL_SCENARIOS[name].with_health(labelled, generator(name, labelled, 0), None)
    step = points_of(failing.labelled)[:, :3] - points_of(labelled)[:, :3]
    assert np.allclose(np.hypot(step[:, 0], step[:, 1]), 2, atol=1e-4) and failing.health.lidar.max() < 0.1
    late = ALL_SCENARIOS["cameras late by 0.5 s"](labelled, generator("late", labelled, 0), earlier)
    for view, now, old in zip(late.frame.cameras, labelled.frame.cameras, earlier.frame.cameras, strict=True):
        assert view.image is old.image and view.extrinsics is now.extrinsics and view.age == now.age


def test_scenarios_are_chosen_by_name_and_group() -> None:
    assert list(chosen(None)) == list(SCENARIOS)
    assert list(chosen(["fog", "LiDAR gone"])) == ["clean", "LiDAR gone", "fog"]
    assert set(chosen(["further"])) == {"clean", *ALL_SCENARIOS} - (set(SCENARIOS) - {"clean"})
    assert list(chosen(["all"])) == list(ALL_SCENARIOS)
    with pytest.raises(ValueError, match=r"'hail' do not exist.*groups published, further, all"):
        chosen(["hail"])


def test_scenarios_with_old_data_are_left_out_of_data_without_drives() -> None:
    scenarios = {name: ALL_SCENARIOS[name] for name in ("clean", "cameras late by 0.5 s", "fog")}
    assert needs_earlier(scenarios)
    kept, left_out = usable(scenarios, [labelled_frame()])
    assert list(kept) == ["clean", "fog"] and "0.5 s before" in left_out["cameras late by 0.5 s"]
    assert usable({"fog": scenarios["fog"]}, [labelled_frame()])[1] == {}
