# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sensors that do not fit the others: places of their data, and health by place."""

import dataclasses

import numpy as np
import pytest
from helpers.scattered_frame import labelled_frame

from aqr_perception.data.corruption.ghost_objects import with_ghosts
from aqr_perception.data.corruption.lidar_corruption import CELLS, REACH, points_in_box
from aqr_perception.data.corruption.misalignment import (
    delayed_lidar,
    in_vehicle_axes,
    moved_lidar,
    turned,
    turned_health,
)
from aqr_perception.frame import LabelledFrame
from aqr_perception.geometry import invert, rigid_transform, transform_points


def health_at(health: np.ndarray, x: float, y: float) -> float:
    cell = (np.array([y, x]) + REACH) * CELLS / (2 * REACH)
    return float(health[int(cell[0]), int(cell[1])])


@pytest.mark.parametrize("degrees", [3.0, -8.0])
def test_a_turned_camera_sees_what_was_ahead_at_its_side_and_stays_at_its_place(degrees: float) -> None:
    view = labelled_frame().frame.cameras[0]
    view = dataclasses.replace(view, extrinsics=rigid_transform([0.3, -0.2, 0.5], [0, 0, 0, 1]) @ view.extrinsics)
    wrong = turned(view, degrees)
    assert wrong.image is view.image
    assert np.allclose(invert(wrong.extrinsics)[:3, 3], invert(view.extrinsics)[:3, 3])
    # The picture's middle shows what lies ahead of the real camera, to the left of where the calibration believes it.
    ahead = invert(view.extrinsics) @ np.array([0, 0, 10.0, 1])
    x, y, z, _ = wrong.extrinsics @ ahead
    assert np.degrees(np.arctan2(-x, z)) == pytest.approx(degrees) and y == pytest.approx(0, abs=1e-9)


def test_a_turned_cameras_health_halves_with_every_3_degrees() -> None:
    assert [float(turned_health(angle).max()) for angle in (0, 3, -3, 6)] == pytest.approx([1, 0.5, 0.5, 0.25])


def test_a_shifted_lidar_is_wrong_everywhere_and_a_turned_one_far_away() -> None:
    points = labelled_frame().frame.points
    assert points is not None
    offset = np.eye(4)
    offset[0, 3] = 2.0
    shifted = moved_lidar(points, offset)
    assert shifted.points is not None and np.allclose(shifted.points[:, 0] - points[:, 0], 2, atol=1e-5)
    assert np.ptp(shifted.health) < 1e-6 and shifted.health[0, 0] == pytest.approx(0.5**4)
    rotation = rigid_transform([0, 0, 0], [0, 0, np.sin(np.radians(1)), np.cos(np.radians(1))])
    yawed = moved_lidar(points, rotation).health
    near, far = health_at(yawed, 3, 0), health_at(yawed, 50, 0)
    assert near > 0.8 > 0.2 > far and far == pytest.approx(0.5 ** (2 * 50.25 * np.radians(2)), rel=0.05)


def test_an_offset_to_the_right_is_one_in_every_model_frame() -> None:
    right = np.eye(4)
    right[0, 3] = 2.0
    for heading, expected in ((np.pi / 2, [2, 0]), (0.0, [0, -2])):  # forward is y, and x
        moved = transform_points(in_vehicle_axes(right, heading), np.zeros((1, 3)))
        assert np.allclose(moved[0, :2], expected)


def drive(speed: float, object_speed: float) -> tuple[LabelledFrame, LabelledFrame]:
    """Return two frames half a second apart of a vehicle that drives along x, with one object at (20, 0)."""
    frames = []
    for seconds in (0.0, 0.5):
        labelled = labelled_frame(seed=int(seconds * 2), stamp_ns=10**9 + int(seconds * 1e9))
        pose = np.eye(4)
        pose[0, 3] = speed * seconds
        boxes = labelled.truth.boxes.copy()
        boxes[:, 7:9] = 0
        boxes[0] = (20, 0, 0, 4, 2, 1.5, 0, object_speed, 0)
        truth = dataclasses.replace(labelled.truth, boxes=boxes)
        frames.append(dataclasses.replace(labelled, truth=truth, model_to_world=pose))
    return frames[0], frames[1]


def test_old_points_are_as_wrong_as_what_moved_since_then() -> None:
    earlier, now = drive(speed=0.0, object_speed=4.0)
    standing = delayed_lidar(now, earlier)
    assert standing is not None and standing.points is earlier.frame.points
    assert health_at(standing.health, -40, 30) == 1 and health_at(standing.health, 20, 0) == pytest.approx(0.5**4)
    earlier, now = drive(speed=4.0, object_speed=4.0)
    driving = delayed_lidar(now, earlier)
    assert driving is not None
    # The object drives with the vehicle, so that its old points are right.
    assert health_at(driving.health, -40, 30) == pytest.approx(0.5**4)
    assert health_at(driving.health, 20, 0) == pytest.approx(1)
    with pytest.raises(ValueError, match="needed an earlier one"):
        delayed_lidar(earlier, now)


def test_ghosts_are_copies_at_free_places_without_health() -> None:
    labelled = labelled_frame()
    points, boxes = labelled.frame.points, labelled.truth.boxes
    assert points is not None
    cloud = with_ghosts(points, boxes, 5, np.random.default_rng(0))
    assert cloud.points is not None and np.array_equal(cloud.points[: len(points)], points)
    added = cloud.points[len(points) :]
    assert len(added) >= 5 * 100
    on_objects = np.concatenate([points[points_in_box(points, box, 0.1)] for box in boxes])
    ranges = np.hypot(on_objects[:, 0], on_objects[:, 1])
    # A ghost is as far from the sensor as its source, so equally dense, and nowhere on an object.
    assert all(np.abs(ranges - np.hypot(*point[:2])).min() < 1e-3 for point in added[::50])
    assert not any(len(points_in_box(added, box)) for box in boxes)
    assert all(health_at(cloud.health, *point[:2]) == 0 for point in added[::50])
    assert all(health_at(cloud.health, *box[:2]) == 1 for box in boxes)


def test_ghosts_appear_without_objects_too() -> None:
    points = labelled_frame().frame.points
    assert points is not None
    cloud = with_ghosts(points, np.zeros((0, 9), np.float32), 2, np.random.default_rng(0))
    assert cloud.points is not None and len(cloud.points) > len(points) + 50 and (cloud.health == 0).any()
