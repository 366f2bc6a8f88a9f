# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Corrupted point clouds and their health."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.data.corruption import lidar_corruption
from aqr_perception.data.corruption.lidar_beams import find_beams
from aqr_perception.data.corruption.lidar_corruption import CELLS, REACH
from aqr_perception.frame import CameraView, Frame
from aqr_perception.geometry import rigid_transform

ELEVATIONS = np.linspace(-30.67, 10.67, 32)  # degrees
HEIGHT = 1.84


def sweep(position: tuple[float, float] = (0.0, 0.0), lag: float = 0.0, columns: int = 180) -> np.ndarray:
    """Return (N, 5) points of a 32-beam LiDAR on flat ground inside four walls, in a frame at the origin."""
    elevation, azimuth = np.meshgrid(np.radians(ELEVATIONS), np.linspace(0, 2 * np.pi, columns, endpoint=False))
    ray = np.stack([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], -1)
    ray = ray.reshape(-1, 3)
    with np.errstate(divide="ignore", invalid="ignore"):
        to_ground = np.where(ray[:, 2] < 0, -HEIGHT / ray[:, 2], np.inf)
        to_walls = np.min(
            [
                np.where(ray[:, a] != 0, (np.sign(ray[:, a]) * d - position[a]) / ray[:, a], np.inf)
                for a, d in ((0, 40.0), (1, 15.0))
            ],
            axis=0,
        )
    points = np.zeros((len(ray), 5), np.float32)
    points[:, :3] = ray * np.minimum(to_ground, to_walls)[:, None]
    points[:, :2] += position
    points[:, 3:] = (20.0, lag)
    return points


def test_beams_are_recovered_from_elevations() -> None:
    beams = find_beams(sweep())
    assert np.allclose(beams.elevations, ELEVATIONS, atol=0.06)
    assert np.array_equal(beams.of_point, np.tile(np.arange(32), 180))


@settings(max_examples=5, deadline=None)
@given(speed=st.floats(0, 20), aside=st.floats(-0.5, 0.5))
def test_beams_of_past_sweeps_are_measured_from_the_lidars_past_position(speed: float, aside: float) -> None:
    lags = (0.0, 0.05, 0.1, 0.15)
    cloud = np.concatenate([sweep((-speed * lag, aside * lag), lag) for lag in lags])
    beams = find_beams(cloud)
    assert np.mean(beams.of_point == np.tile(np.arange(32), 180 * len(lags))) > 0.97


def test_four_beams_leave_an_eighth_of_the_points_at_four_elevations() -> None:
    points = sweep()
    before = points.copy()
    for seed in range(5):
        cloud = lidar_corruption.few_beams(points, np.random.default_rng(seed))
        assert cloud.points is not None
        assert len(cloud.points) == len(points) * 4 / 32
        elevations = np.degrees(np.arctan2(cloud.points[:, 2], np.hypot(cloud.points[:, 0], cloud.points[:, 1])))
        assert len(np.unique(elevations.round(1))) == 4
        assert 0 < cloud.health.min() == cloud.health.max() < 0.5
    assert np.array_equal(points, before)


def test_the_beams_nearest_to_given_elevations_are_four_different_ones() -> None:
    cloud = lidar_corruption.beams_nearest(sweep(), (0.1, 0.0, -0.1, -5.4))
    assert cloud.points is not None
    kept = np.degrees(np.arctan2(cloud.points[:, 2], np.hypot(cloud.points[:, 0], cloud.points[:, 1])))
    nearest = ELEVATIONS[[int(np.abs(ELEVATIONS - e).argmin()) for e in (0.0, -1.33, 1.33, -5.33)]]
    assert np.allclose(np.unique(kept.round(2)), np.sort(nearest), atol=0.02)


def test_point_clouds_without_beams_or_without_points_do_not_fail() -> None:
    rng = np.random.default_rng(0)
    for count in (0, 1, 7):
        points = rng.uniform(-20, 20, (count, 5)).astype(np.float32)
        points[:, 4] = 0
        cloud = lidar_corruption.few_beams(points, rng)
        assert cloud.points is not None
        assert len(cloud.points) <= count


@settings(max_examples=25, deadline=None)
@given(heading=st.floats(-7, 7), half_angle=st.floats(0.3, 3.0))
def test_a_limited_field_of_view_leaves_the_points_and_the_health_of_the_sector(
    heading: float, half_angle: float
) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-50, 50, (500, 5)).astype(np.float32)
    cloud = lidar_corruption.limited_field_of_view(points, heading, half_angle)
    assert cloud.points is not None
    # The angle between a direction and the sector's middle, by their scalar product.
    middle = np.array([np.cos(heading), np.sin(heading)])

    def off(places: np.ndarray) -> np.ndarray:
        return np.arccos(np.clip(places @ middle / np.linalg.norm(places, axis=1), -1, 1))

    assert (off(cloud.points[:, :2]) <= half_angle + 1e-3).all()
    assert len(cloud.points) == pytest.approx((off(points[:, :2]) <= half_angle).sum(), abs=1)
    centres = (np.stack(np.meshgrid(range(CELLS), range(CELLS)), -1) + 0.5) * 2 * REACH / CELLS - REACH
    clear = np.abs(off(centres.reshape(-1, 2)) - half_angle) > 1e-3
    expected = off(centres.reshape(-1, 2)) <= half_angle
    assert np.array_equal(cloud.health.ravel()[clear] == 1, expected[clear])
    assert set(np.unique(cloud.health)) <= {0.0, 1.0}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_dark_objects_have_no_points_and_no_health_and_the_rest_stays(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = np.zeros((3, 9), np.float32)
    boxes[:, :2] = rng.uniform(-40, 40, (3, 2))
    boxes[:, 3:6] = rng.uniform(0.4, 8, (3, 3))
    boxes[:, 6] = rng.uniform(-3, 3, 3)
    cos, sin = np.cos(boxes[:, 6]), np.sin(boxes[:, 6])
    local = rng.uniform(-0.49, 0.49, (40, 3, 3)) * boxes[:, 3:6]
    on_objects = boxes[:, :3] + np.stack(
        [local[..., 0] * cos - local[..., 1] * sin, local[..., 0] * sin + local[..., 1] * cos, local[..., 2]], -1
    )
    points = np.zeros((120 + 200, 5), np.float32)
    points[:120, :3] = on_objects.reshape(-1, 3)
    points[120:, :3] = rng.uniform((-50, -50, 10), (50, 50, 12), (200, 3))  # above all objects
    cloud = lidar_corruption.without_objects(points, boxes)
    assert cloud.points is not None
    assert np.array_equal(cloud.points, points[120:])
    cells = np.floor((on_objects[..., :2].reshape(-1, 2) + REACH) * CELLS / (2 * REACH)).astype(int)
    assert not cloud.health[cells[:, 1], cells[:, 0]].any()
    x, y = np.meshgrid(*[(np.arange(CELLS) + 0.5) * 2 * REACH / CELLS - REACH] * 2)
    distance = np.min([np.hypot(x - box[0], y - box[1]) - np.hypot(*box[3:5]) / 2 for box in boxes], axis=0)
    assert cloud.health[distance > 2.0].all()


def test_a_dark_moving_object_loses_its_points_of_past_sweeps_too() -> None:
    box = np.array([[20.0, 0, 0, 4, 2, 1.5, 0, 10.0, 0]], np.float32)
    points = np.array([[20, 0, 0, 9, 0], [15, 0, 0, 9, 0.5], [15, 0, 0, 9, 0]], np.float32)
    cloud = lidar_corruption.without_objects(points, box)
    assert cloud.points is not None
    assert np.array_equal(cloud.points, points[2:])


@given(severity=st.floats(0, 1))
@settings(max_examples=10, deadline=None)
def test_noise_and_lost_health_grow_with_severity(severity: float) -> None:
    points = sweep(columns=40)
    before = points.copy()
    cloud = lidar_corruption.noisy(points, severity, np.random.default_rng(0))
    assert cloud.points is not None
    assert np.array_equal(points, before)
    deviation = (cloud.points[:, :3] - points[:, :3]).std()
    assert deviation == pytest.approx(lidar_corruption.MAX_NOISE * severity, rel=0.1, abs=1e-5)
    assert np.array_equal(cloud.points[:, 3:], points[:, 3:])
    assert cloud.health.max() == pytest.approx(1 - 0.9 * severity)


def test_a_missing_lidar_has_no_point_cloud_instead_of_an_empty_one() -> None:
    cloud = lidar_corruption.gone()
    assert cloud.points is None
    assert not cloud.health.any()


@settings(max_examples=20, deadline=None)
@given(heading=st.floats(-3.1, 3.1))
def test_the_front_is_where_the_front_camera_looks(heading: float) -> None:
    optical = np.array([[0.0, -1.0, 0.0, 0], [0.0, 0.0, -1.0, 0], [1.0, 0.0, 0.0, 0], [0, 0, 0, 1]])

    def camera(name: str, yaw: float) -> CameraView:
        turned = rigid_transform([0.3, 0.1, -0.2], [0, 0, np.sin(-yaw / 2), np.cos(-yaw / 2)])
        return CameraView(name, np.zeros((2, 2, 3), np.uint8), np.eye(3), optical @ turned)

    views = (camera("CAM_FRONT_LEFT", heading + 1), camera("CAM_FRONT", heading), camera("CAM_BACK", heading + 3))
    assert lidar_corruption.forward_heading(Frame(0, None, views)) == pytest.approx(heading, abs=1e-6)
    assert lidar_corruption.forward_heading(Frame(0, None, ())) == 0


def test_the_rings_of_a_real_sweep_are_recovered(shared_reference: Path) -> None:
    folder = shared_reference / "nuscenes_keyframe"
    lidar = json.loads((folder / "keyframe.json").read_text())["lidar"]["file"]
    points = np.fromfile(folder / lidar, "<f4").reshape(-1, 5)
    ring = points[:, 4].astype(int)
    points[:, 4] = 0.0
    beams = find_beams(points)
    assert len(beams.elevations) == 32
    far = np.hypot(points[:, 0], points[:, 1]) > 10
    # The vehicle moves while the LiDAR turns, which shifts what low beams see near by.
    assert np.mean(beams.of_point[far] == ring[far]) > 0.95
    four = lidar_corruption.beams_nearest(points, (2.67, 0.0, -2.67, -5.33)).points
    assert four is not None
    assert len(four) == pytest.approx(len(points) * 4 / 32, rel=0.25)
