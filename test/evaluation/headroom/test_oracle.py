# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the oracle takes out, and the health at points."""

import dataclasses

import numpy as np
import pytest

from aqr_perception.data.corruption.lidar_corruption import CELLS, REACH
from aqr_perception.data.health import HEALTH_GRID, SensorHealth
from aqr_perception.detector import Detector
from aqr_perception.evaluation.headroom.known_failures import FAILURES, chosen_failures, failing_frame
from aqr_perception.evaluation.headroom.oracle import (
    Broken,
    broken_sensors,
    broken_tokens,
    camera_health_at,
    lidar_health_at,
    removed_share,
)
from aqr_perception.frame import LabelledFrame
from aqr_perception.models.removed_tokens import TokenMask


def test_nothing_broken_takes_nothing_out(routed: Detector, small: LabelledFrame) -> None:
    features = routed.extract(small.frame)
    for name in ("clean", "LiDAR gone", "one camera gone", "all cameras gone"):
        failing = failing_frame(name, FAILURES[name], small, 0, None)
        mask = broken_tokens(routed, routed.extract(failing.labelled.frame, features), failing.health)
        assert not mask.any() and not broken_sensors(mask), "a missing sensor has no tokens"


def test_cells_with_low_health_at_their_centres_are_taken_out(routed: Detector, small: LabelledFrame) -> None:
    features = routed.extract(small.frame)
    assert features.maps.bev is not None and features.maps.image is not None
    lidar = np.ones((CELLS, CELLS), np.float32)
    lidar[: CELLS // 2] = 0.4  # y < 0
    name, other = (view.name for view in small.frame.cameras)
    health = SensorHealth(lidar, REACH, {name: np.full(HEALTH_GRID, 0.5, np.float32)})
    mask = broken_tokens(routed, features, health)
    rows, columns = features.maps.bev.shape[-2:]
    assert mask.lidar is not None and mask.lidar.shape == (rows, columns)
    assert mask.lidar[: rows // 2].all() and not mask.lidar[rows // 2 :].any()
    assert mask.cameras[name].all() and other not in mask.cameras
    assert broken_sensors(mask) == Broken(True, (name,))
    cells = features.maps.image.shape[-2] * features.maps.image.shape[-1]
    assert removed_share(mask, features) == pytest.approx((rows * columns / 2 + cells) / (rows * columns + 2 * cells))
    stricter = broken_tokens(routed, features, health, threshold=0.45)
    assert stricter.lidar is not None and stricter.lidar.any() and not stricter.cameras[name].any()


def test_a_half_covered_image_loses_the_tokens_of_that_half(routed: Detector, small: LabelledFrame) -> None:
    name = small.frame.cameras[0].name
    grid = np.ones(HEALTH_GRID, np.float32)
    grid[:, : HEALTH_GRID[1] // 2] = 0
    mask = broken_tokens(routed, routed.extract(small.frame), SensorHealth(cameras={name: grid})).cameras[name]
    half = mask.shape[1] // 2
    assert mask[:, :half].all() and not mask[:, half:].any()


def test_health_at_points_is_that_of_their_cell_and_pixel(small: LabelledFrame) -> None:
    lidar = np.ones((CELLS, CELLS), np.float32)
    lidar[70, 65] = 0.25  # y from 10 m, x from 5 m, cells of 1 m
    points = np.array([[5.5, 10.5, 0], [5.5, 9.5, 0], [500.0, 0, 0]], np.float32)
    assert lidar_health_at(SensorHealth(lidar, REACH), points).tolist() == [0.25, 1, 1]
    view = dataclasses.replace(
        small.frame.cameras[0],
        image=np.zeros((160, 280, 3), np.uint8),
        intrinsics=np.array([[140.0, 0, 140], [0, 140, 80], [0, 0, 1]]),
        extrinsics=np.eye(4),
    )
    grid = np.ones(HEALTH_GRID, np.float32)
    grid[8, 14:] = 0.5
    frame = dataclasses.replace(small.frame, cameras=(view,))
    points = np.array([[0.01, 0.01, 1], [-0.01, 0.01, 1], [0, 0, -1], [1.1, 0, 1]], np.float32)
    found = camera_health_at(SensorHealth(cameras={view.name: grid}), frame, 0, points)
    np.testing.assert_array_equal(found, np.array([0.5, 1, np.nan, np.nan], np.float32))


def test_a_mask_knows_whether_it_removes_anything() -> None:
    assert not TokenMask().any() and not TokenMask(np.zeros((2, 2), bool), {"front": np.zeros((1, 1), bool)}).any()
    assert TokenMask(None, {"front": np.ones((1, 1), bool)}).any() and TokenMask(np.ones((1, 1), bool)).any()


@pytest.mark.parametrize("name", FAILURES)
def test_failures_are_repeatable_and_leave_their_input(name: str, small: LabelledFrame) -> None:
    images = [view.image.copy() for view in small.frame.cameras]
    earlier = dataclasses.replace(small.frame, stamp_ns=small.frame.stamp_ns - 500_000_000)
    before = dataclasses.replace(small, frame=earlier)
    first, second = (failing_frame(name, FAILURES[name], small, 3, before) for _ in range(2))
    for one, other in zip(first.labelled.frame.cameras, second.labelled.frame.cameras, strict=True):
        assert np.array_equal(one.image, other.image) and np.array_equal(one.extrinsics, other.extrinsics)
    assert np.array_equal(first.labelled.frame.points, second.labelled.frame.points) or (
        first.labelled.frame.points is second.labelled.frame.points is None
    )
    for view, image in zip(small.frame.cameras, images, strict=True):
        assert np.array_equal(view.image, image)
    whole = first.health.lidar.min() == 1 and not first.health.cameras
    assert whole == (name == "clean")


def test_failures_are_chosen_by_name_and_group() -> None:
    assert list(chosen_failures(None)) == list(FAILURES)
    assert list(chosen_failures(["one camera black", "4 beams"])) == ["clean", "4 beams", "one camera black"]
    assert "LiDAR gone" in chosen_failures(["published"]) and "fog" not in chosen_failures(["published"])
    with pytest.raises(ValueError, match="scenarios 'dust' do not exist; choose from clean, 4 beams"):
        chosen_failures(["dust"])
