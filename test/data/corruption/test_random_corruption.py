# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Randomly corrupted frames with the health of each sensor."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from helpers.scattered_frame import labelled_frame
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.data.augmentation import PictureChange, change_pictures, move
from aqr_perception.data.corruption.camera_corruption import half_occluded
from aqr_perception.data.corruption.health_transfer import transfer_health
from aqr_perception.data.corruption.lidar_corruption import CELLS, REACH, limited_field_of_view, points_in_box
from aqr_perception.data.corruption.random_corruption import corrupt, misplaced, random_offset, with_points, with_views
from aqr_perception.data.corruption.sensor_failures import without_broken_sensors
from aqr_perception.data.health import HEALTH_GRID, FrameWithHealth, SensorHealth
from aqr_perception.frame import LabelledFrame
from aqr_perception.geometry import invert, rigid_transform


def arrays(labelled: LabelledFrame) -> list[np.ndarray]:
    frame, truth = labelled.frame, labelled.truth
    found = [view.image for view in frame.cameras] + [view.extrinsics for view in frame.cameras]
    found += [truth.boxes, truth.labels, truth.tracks, truth.lidar_points, truth.visibility]
    return found if frame.points is None else [frame.points, *found]


def first_draw(wanted: Callable[[FrameWithHealth], bool], **frame: int) -> FrameWithHealth:
    drawn = (corrupt(labelled_frame(**frame), np.random.default_rng(seed)) for seed in range(300))
    return next(sample for sample in drawn if wanted(sample))


def has_points(sample: FrameWithHealth) -> bool:
    points = sample.labelled.frame.points
    return points is not None and len(points) > 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), lidar=st.booleans(), cameras=st.integers(0, 3), frozen=st.booleans())
def test_corruption_keeps_its_input_and_health_within_0_and_1(
    seed: int, lidar: bool, cameras: int, frozen: bool
) -> None:
    labelled = labelled_frame(lidar=lidar, cameras=cameras)
    earlier = labelled_frame(seed=1, stamp_ns=5 * 10**8, cameras=cameras) if frozen else None
    before = [array.copy() for array in arrays(labelled)]
    for array in arrays(labelled):
        array.setflags(write=False)
    corrupted = corrupt(labelled, np.random.default_rng(seed), earlier)
    assert all(np.array_equal(a, b) for a, b in zip(arrays(labelled), before, strict=True))

    health = corrupted.health
    for grid in (health.lidar, *health.cameras.values()):
        assert grid.dtype == np.float32
        assert grid.min() >= 0
        assert grid.max() <= 1
    assert all(grid.shape == HEALTH_GRID for grid in health.cameras.values())
    frame, truth = corrupted.labelled.frame, corrupted.labelled.truth
    assert truth.visibility.shape == (6, len(frame.cameras))
    assert np.array_equal(truth.boxes, labelled.truth.boxes)
    assert (truth.lidar_points <= labelled.truth.lidar_points).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_same_seed_gives_the_same_failure(seed: int) -> None:
    first, second = (corrupt(labelled_frame(), np.random.default_rng(seed)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(arrays(first.labelled), arrays(second.labelled), strict=True))
    assert np.array_equal(first.health.lidar, second.health.lidar)
    assert first.health.cameras.keys() == second.health.cameras.keys()
    assert all(np.array_equal(first.health.cameras[name], grid) for name, grid in second.health.cameras.items())


@pytest.mark.slow
def test_about_a_third_of_the_frames_stay_intact_and_no_frame_goes_blind() -> None:
    labelled = labelled_frame()
    rng = np.random.default_rng(0)
    drawn = [corrupt(labelled, rng) for _ in range(400)]
    clean = [sample for sample in drawn if sample.labelled is labelled]
    assert 0.28 < len(clean) / len(drawn) < 0.42
    assert all(sample.health.lidar.all() and not sample.health.cameras for sample in clean)
    for sample in drawn:
        frame, cameras = sample.labelled.frame, sample.health.cameras
        seen = [view.name not in cameras or cameras[view.name].any() for view in frame.cameras]
        assert any(seen) or (frame.points is not None and sample.health.lidar.any())


def test_a_tenth_of_the_frames_has_no_camera_and_as_many_have_no_points() -> None:
    rng = np.random.default_rng(0)
    drawn = [corrupt(labelled_frame(), rng) for _ in range(400)]
    without_cameras = [sample for sample in drawn if not sample.labelled.frame.cameras]
    without_points = [sample for sample in drawn if not has_points(sample)]
    for found in (without_cameras, without_points):
        assert 0.07 < len(found) / len(drawn) < 0.2
    # The other modality is intact in most of them.
    assert sum(bool(sample.health.lidar.all()) for sample in without_cameras) > len(without_cameras) / 2
    assert sum(not sample.health.cameras for sample in without_points) > len(without_points) / 2


def test_a_rig_with_one_modality_keeps_it() -> None:
    for frame in ({"lidar": False}, {"cameras": 0}):
        labelled = labelled_frame(**frame)
        for seed in range(60):
            sample = corrupt(labelled, np.random.default_rng(seed))
            assert sample.labelled.frame.cameras or has_points(sample)


def test_every_corrupted_sensor_loses_health() -> None:
    labelled = labelled_frame()
    for seed in range(80):
        corrupted = corrupt(labelled, np.random.default_rng(seed))
        frame, health = corrupted.labelled.frame, corrupted.health
        left = {view.name: view for view in frame.cameras}
        for view in labelled.frame.cameras:
            same = view.name in left and left[view.name] is view
            assert same == (view.name not in health.cameras)
            if not same and view.name not in left:
                assert not health.cameras[view.name].any()
        if frame.points is not labelled.frame.points:
            assert health.lidar.min() < 1
            assert health.reach == REACH


def test_without_a_camera_the_visibility_columns_of_the_others_stay_in_order() -> None:
    labelled = labelled_frame()
    visibility = np.tile(np.array([0.1, 0.2, 0.3], np.float32), (6, 1))
    labelled = dataclasses.replace(labelled, truth=dataclasses.replace(labelled.truth, visibility=visibility))
    views = labelled.frame.cameras
    kept = with_views(labelled, (views[0], views[2]))
    assert kept.truth.visibility[0].tolist() == pytest.approx([0.1, 0.3])


def test_points_that_are_removed_are_no_longer_counted() -> None:
    labelled = labelled_frame()
    assert labelled.frame.points is not None
    assert (labelled.truth.lidar_points >= 100).all()
    assert not with_points(labelled, None).truth.lidar_points.any()
    without_first = np.delete(labelled.frame.points, points_in_box(labelled.frame.points, labelled.truth.boxes[0]), 0)
    left = with_points(labelled, without_first).truth.lidar_points
    assert left[0] == 0
    assert (left[1:] > 0).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), severity=st.floats(0.1, 1.0))
def test_a_misplaced_camera_is_off_by_up_to_3_degrees_and_30_centimetres(seed: int, severity: float) -> None:
    view = labelled_frame().frame.cameras[0]
    offset = random_offset(severity, np.random.default_rng(seed))
    error = invert(view.extrinsics) @ misplaced(view, offset).extrinsics
    angle = np.degrees(np.arccos(np.clip((np.trace(error[:3, :3]) - 1) / 2, -1, 1)))
    assert angle == pytest.approx(3 * severity, abs=1e-3)
    assert np.linalg.norm(error[:3, 3]) == pytest.approx(0.3 * severity)


def test_a_frame_without_sensors_stays_unchanged() -> None:
    labelled = labelled_frame(lidar=False, cameras=0)
    assert all(corrupt(labelled, np.random.default_rng(seed)).labelled is labelled for seed in range(10))


def test_one_two_or_all_cameras_fail_at_once() -> None:
    for count in (1, 2, 3):
        assert len(first_draw(lambda sample, n=count: len(sample.health.cameras) == n).health.cameras) == count


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_lidar_health_follows_the_points_into_an_augmented_model_frame(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labelled = labelled_frame()
    assert labelled.frame.points is not None
    health = limited_field_of_view(labelled.frame.points, rng.uniform(-3, 3), np.pi / 3).health
    motion = rigid_transform(rng.normal(0, 0.5, 3), [0, 0, *np.array([np.sin(a := rng.uniform(0, 1.5)), np.cos(a)])])
    motion = motion @ np.diag([*rng.choice([-1.0, 1.0], 2), 1.0, 1.0])
    motion[:3, :3] *= rng.uniform(0.9, 1.1)
    moved = transfer_health(FrameWithHealth(labelled, SensorHealth(health, REACH)), move(labelled, motion))

    def at(grid: np.ndarray, points: np.ndarray) -> np.ndarray:
        cells = np.floor((points[:, :2] + REACH) * CELLS / (2 * REACH)).astype(int)
        return grid[cells[:, 1], cells[:, 0]]

    points = labelled.frame.points[np.hypot(*labelled.frame.points[:, :2].T) < 40]
    onto = points[:, :3] @ motion[:3, :3].T + motion[:3, 3]
    # Only cells that the sector's border crosses may differ.
    assert np.mean(np.abs(at(health, points) - at(moved.health.lidar, onto)) > 0.5) < 0.08


def test_camera_health_follows_the_image_through_a_flip_and_a_crop() -> None:
    labelled = labelled_frame(cameras=1)
    view = labelled.frame.cameras[0]
    picture = half_occluded(view.image, np.random.default_rng(0))
    covered_left = picture.health[0, 0] == 0
    failed = with_views(labelled, (dataclasses.replace(view, image=picture.image),))
    corrupted = FrameWithHealth(failed, SensorHealth(cameras={"front": picture.health}))

    flipped = transfer_health(corrupted, change_pictures(failed, PictureChange(size=(56, 32), flip=True)))
    assert np.array_equal(flipped.health.cameras["front"], picture.health[:, ::-1])
    zoomed = transfer_health(
        corrupted, change_pictures(failed, PictureChange(size=(28, 16), zoom=2.0, crop=(0.0, 1.0)))
    )
    left_half = zoomed.health.cameras["front"]
    assert left_half[:, :-1].max() == 0 if covered_left else left_half[:, :-1].min() == 1


def test_transfer_to_the_same_frame_keeps_the_health() -> None:
    corrupted = first_draw(lambda sample: bool(sample.health.cameras) and sample.health.lidar.size > 1)
    same = transfer_health(corrupted, corrupted.labelled)
    assert np.allclose(same.health.lidar, corrupted.health.lidar, atol=1e-3)
    for name, grid in corrupted.health.cameras.items():
        assert np.allclose(same.health.cameras[name], grid, atol=1e-3)


def test_misaligned_and_late_sensors_and_fog_are_among_the_draws() -> None:
    labelled, earlier = labelled_frame(), labelled_frame(seed=1, stamp_ns=5 * 10**8)
    points = labelled.frame.points
    assert points is not None
    found = {"turned": 0, "shifted": 0, "late LiDAR": 0, "ghosts": 0, "both": 0}
    for seed in range(400):
        sample = corrupt(labelled, np.random.default_rng(seed), earlier)
        frame, health = sample.labelled.frame, sample.health
        for view, before in zip(frame.cameras, labelled.frame.cameras, strict=False):
            found["turned"] += view.image is before.image and view.extrinsics is not before.extrinsics
        if frame.points is earlier.frame.points:
            found["late LiDAR"] += 1
        elif frame.points is not None and len(frame.points) > len(points):
            found["ghosts"] += 1
        elif frame.points is not None and frame.points is not points and len(frame.points) == len(points):
            step = np.linalg.norm(frame.points[:, :3] - points[:, :3], axis=1)
            found["shifted"] += bool(step.std() < 0.3 * step.mean() and health.lidar.max() < 0.9)
        found["both"] += len(health.cameras) == 3 and frame.points is not points and len(frame.cameras) == 3
    assert min(found.values()) > 0


def wholly_broken(sample: FrameWithHealth) -> set[str]:
    views = {view.name for view in sample.labelled.frame.cameras}
    return {name for name, grid in sample.health.cameras.items() if name in views and (grid <= 0.5).all()}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), cameras=st.integers(0, 3))
def test_sensors_that_are_broken_everywhere_are_removed_and_all_others_stay(seed: int, cameras: int) -> None:
    corrupted = corrupt(labelled_frame(cameras=cameras), np.random.default_rng(seed))
    left = without_broken_sensors(corrupted)
    before, after = corrupted.labelled.frame, left.labelled.frame
    blind = before.points is None or bool((corrupted.health.lidar <= 0.5).all())
    if blind and len(wholly_broken(corrupted)) == len(before.cameras):
        assert left is corrupted
        return
    assert (after.points is None) == blind
    assert blind or after.points is before.points
    kept = [view for view in before.cameras if view.name not in wholly_broken(corrupted)]
    assert list(map(id, after.cameras)) == list(map(id, kept))
    assert left.labelled.truth.visibility.shape[1] == len(kept)
    assert not wholly_broken(left)
    # The health of what is missing says so, and that of the rest is as before.
    for name, grid in corrupted.health.cameras.items():
        expected = np.zeros(HEALTH_GRID, np.float32) if name in wholly_broken(corrupted) else grid
        np.testing.assert_array_equal(left.health.cameras[name], expected)
    np.testing.assert_array_equal(left.health.lidar, 0.0 * left.health.lidar if blind else corrupted.health.lidar)


def test_the_only_sensor_stays_however_broken_it_is() -> None:
    labelled = labelled_frame(cameras=0)
    health = SensorHealth(np.zeros((1, 1), np.float32))
    alone = FrameWithHealth(labelled, health)
    assert without_broken_sensors(alone) is alone
