# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Objects of other frames pasted into a point cloud: they fit the frame, and bring exactly their own points."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aqr_perception.data.pasting import paste_objects
from aqr_perception.frame import CameraView, Frame, GroundTruth, LabelledFrame

CAR, BUS = 0, 3


def box(x: float, y: float, yaw: float = 0.0, bottom: float = -2.0, speed: float = 0.0) -> list[float]:
    return [x, y, bottom + 1.0, 4.0, 2.0, 2.0, yaw, speed * np.cos(yaw), speed * np.sin(yaw)]


def points_on(boxes: NDArray[np.float32], seed: int, count: int = 30) -> NDArray[np.float32]:
    """Return points of a newest sweep and one 0.1 s before, in boxes that move."""
    rng, parts = np.random.default_rng(seed), []
    for x, y, z, length, width, height, yaw, *velocity in boxes:
        for age in (0.0, 0.1):
            inner = rng.uniform(-0.5, 0.5, (count, 3)) * (length, width, height)
            turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
            place = np.c_[inner[:, :2] @ turn - age * np.array(velocity), inner[:, 2]] + (x, y, z)
            parts.append(np.c_[place, np.full(count, 100.0), np.full(count, age)])
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, 5), np.float32)


def frame(
    boxes: list[list[float]], label: int, seed: int = 0, clutter: NDArray[np.float32] | None = None
) -> LabelledFrame:
    truth = np.array(boxes, np.float32).reshape(-1, 9)
    count = len(truth)
    cloud = points_on(truth, seed)
    cloud = cloud if clutter is None else np.concatenate([cloud, clutter])
    return LabelledFrame(
        Frame(0, cloud),
        GroundTruth(
            truth,
            np.full(count, label),
            np.arange(count),
            np.full(count, 30),
            np.zeros((count, 0), np.float32),
        ),
    )


def in_box(points: NDArray[np.float32], one: NDArray[np.float32]) -> NDArray[np.bool_]:
    offset = points[:, :2] - one[:2] + points[:, 4:5] * one[7:9]
    cos, sin = np.cos(one[6]), np.sin(one[6])
    along, across = offset @ (cos, sin), offset @ (-sin, cos)
    result: NDArray[np.bool_] = (
        (np.abs(along) < one[3] / 2 + 0.01)
        & (np.abs(across) < one[4] / 2 + 0.01)
        & (np.abs(points[:, 2] - one[2]) < one[5] / 2 + 0.01)
    )
    return result


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), speed=st.floats(-15, 15), yaw=st.floats(-3, 3), ground=st.floats(-3, -1))
def test_an_object_brings_its_points_of_all_sweeps_and_stands_on_the_ground_beside_it(
    seed: int, speed: float, yaw: float, ground: float
) -> None:
    target = frame([box(10, 0, bottom=ground), box(-10, 0, bottom=ground)], CAR)
    donor = frame([box(15, 3, yaw, speed=speed)], BUS, seed)
    pasted = paste_objects(target, [donor], np.random.default_rng(seed))
    if len(pasted.truth) == 2:  # no free place in three tries
        assert pasted is target
        return
    new = pasted.truth.boxes[2]
    assert pasted.truth.labels[2] == BUS
    assert pasted.truth.lidar_points[2] == 30
    assert in_box(pasted.frame.points, new).sum() == 60
    assert np.hypot(*new[:2]) == pytest.approx(np.hypot(15, 3), abs=1e-4)
    assert np.hypot(*new[7:9]) == pytest.approx(abs(speed), abs=1e-4)
    assert new[2] - new[5] / 2 == pytest.approx(ground, abs=1e-5)
    np.testing.assert_array_equal(pasted.truth.boxes[:2], target.truth.boxes)


def test_pasted_objects_do_not_overlap_and_hide_no_point_of_their_own() -> None:
    rng = np.random.default_rng(0)
    target = frame([box(x, 0) for x in (-25, -15, 10, 20)], CAR)
    donors = [frame([box(x, y) for x in (-20, -8, 8, 20) for y in (-15, 15)], label, label) for label in range(1, 6)]
    pasted = paste_objects(target, donors, rng)
    boxes = pasted.truth.boxes
    assert len(boxes) > 8
    distances = np.hypot(*(boxes[:, None, :2] - boxes[None, :, :2]).transpose(2, 0, 1)) + 1e3 * np.eye(len(boxes))
    assert distances.min() >= np.hypot(4, 2) - 1e-4
    assert [in_box(pasted.frame.points, one).sum() for one in boxes] == [60] * len(boxes)


def test_points_of_the_frame_in_a_pasted_object_vanish_and_all_others_stay() -> None:
    rng = np.random.default_rng(1)
    clutter = np.c_[rng.uniform((-30, -30, -2), (30, 30, 0), (20_000, 3)), np.full(20_000, 7.0), np.zeros(20_000)]
    target = frame([box(10, 0)], CAR, clutter=clutter.astype(np.float32))
    pasted = paste_objects(target, [frame([box(12, 5)], BUS)], rng)
    new = pasted.truth.boxes[1]
    old = target.frame.points
    kept = pasted.frame.points[pasted.frame.points[:, 3] == 7.0]
    inside = in_box(old, new) & (old[:, 3] == 7.0)
    assert inside.sum() > 3
    assert not in_box(kept, new).any()
    assert (old[:, 3] == 7.0).sum() - inside.sum() >= len(kept) > 19_900


def test_a_class_of_which_the_frame_has_enough_is_not_pasted() -> None:
    target = frame([box(x, 0) for x in (-25, -15, 10, 20)], CAR)
    assert paste_objects(target, [frame([box(15, 15)], CAR)], np.random.default_rng(0)) is target


def test_objects_of_hardly_any_points_are_not_pasted() -> None:
    donor = frame([box(15, 15)], BUS)
    donor = replace(donor, truth=replace(donor.truth, lidar_points=np.array([4])))
    target = frame([box(10, 0)], CAR)
    assert paste_objects(target, [donor], np.random.default_rng(0)) is target


def test_a_frame_without_objects_shows_no_ground_and_stays_as_it_is() -> None:
    target = frame([], CAR)
    assert paste_objects(target, [frame([box(15, 15)], BUS)], np.random.default_rng(0)) is target


def test_a_frame_with_cameras_is_refused() -> None:
    view = CameraView("front", np.zeros((4, 4, 3), np.uint8), np.eye(3), np.eye(4))
    target = frame([box(10, 0)], CAR)
    target = replace(target, frame=replace(target.frame, cameras=(view,)))
    with pytest.raises(ValueError, match="without cameras, whose pictures would not show them"):
        paste_objects(target, [target], np.random.default_rng(0))
