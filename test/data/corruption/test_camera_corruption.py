# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Corrupted images and their health."""

import dataclasses
import itertools
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Generator

from aqr_perception.data.corruption import camera_corruption
from aqr_perception.data.corruption.camera_corruption import CorruptedPicture
from aqr_perception.data.health import HEALTH_GRID
from aqr_perception.frame import CameraView, Frame, GroundTruth, LabelledFrame

Fault = Callable[[np.ndarray, float, Generator], CorruptedPicture]
FAULTS: dict[str, Fault] = {
    "noisy": camera_corruption.noisy,
    "blurred": camera_corruption.blurred,
    "over-exposed": lambda image, severity, rng: camera_corruption.over_exposed(image, severity),
    "occluded": camera_corruption.occluded,
    "late": camera_corruption.late,
}


def picture_with_detail(seed: int = 0, size: tuple[int, int] = (112, 64)) -> np.ndarray:
    """Return (H, W, 3) smooth shapes over the whole range of brightness, with detail."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.uniform(0, 225, (6, 10, 3)).astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 245).astype(np.uint8)


def labelled(image: np.ndarray, stamp_ns: int, pose: np.ndarray | None = None) -> LabelledFrame:
    view = CameraView("front", image, np.eye(3), np.eye(4))
    nothing = np.zeros(0, np.int64)
    truth = GroundTruth(np.zeros((0, 9), np.float32), nothing, nothing, nothing, np.zeros((0, 1), np.float32))
    return LabelledFrame(Frame(stamp_ns, None, (view,)), truth, np.eye(4) if pose is None else pose)


def test_a_black_camera_shows_nothing_and_has_no_health() -> None:
    picture = camera_corruption.black(picture_with_detail())
    assert picture.image.mean() == 0
    assert picture.image.shape == picture_with_detail().shape
    assert not picture.health.any()


@pytest.mark.parametrize("name", FAULTS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), severity=st.floats(0.0, 1.0), width=st.integers(30, 140), height=st.integers(20, 90))
def test_images_keep_their_size_and_health_its_range(
    name: str, seed: int, severity: float, width: int, height: int
) -> None:
    image = picture_with_detail(size=(width, height))
    before = image.copy()
    picture = FAULTS[name](image, severity, np.random.default_rng(seed))
    assert np.array_equal(image, before)
    assert picture.image.shape == image.shape
    assert picture.image.dtype == np.uint8
    assert picture.health.shape == HEALTH_GRID
    assert picture.health.dtype == np.float32
    assert picture.health.min() >= 0
    assert picture.health.max() <= 1


@pytest.mark.parametrize("name", FAULTS)
def test_health_falls_and_the_error_grows_with_severity(name: str) -> None:
    image = picture_with_detail()
    steps = np.linspace(0.05, 1.0, 8)
    pictures = [FAULTS[name](image, float(severity), np.random.default_rng(3)) for severity in steps]
    health = [float(picture.health.mean()) for picture in pictures]
    error = [float(np.abs(picture.image.astype(float) - image).mean()) for picture in pictures]
    assert all(later <= former + 1e-6 for former, later in itertools.pairwise(health))
    assert health[0] > 0.85
    assert health[-1] < 0.6
    assert max(abs(a - b) for a, b in itertools.pairwise(health)) < 0.25
    assert error[-1] > 3 * error[0]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), severity=st.floats(0.2, 1.0))
def test_an_occluded_image_has_health_0_exactly_where_it_is_covered(seed: int, severity: float) -> None:
    # Pixels that are equal over a white and a black scene are covered. A health cell is 8 pixels wide.
    shape = (8 * HEALTH_GRID[0], 8 * HEALTH_GRID[1], 3)
    white, black = np.full(shape, 255, np.uint8), np.zeros(shape, np.uint8)
    on_white, on_black = (
        camera_corruption.occluded(image, severity, np.random.default_rng(seed)) for image in (white, black)
    )

    def everywhere(holds: np.ndarray) -> np.ndarray:
        return holds.reshape(HEALTH_GRID[0], 8, HEALTH_GRID[1], 8, 3).all(axis=(1, 3, 4))

    covered = everywhere(on_white.image == on_black.image)
    assert covered.any()
    assert np.array_equal(on_white.health == 0, covered)
    assert np.array_equal(on_white.health == 1, everywhere(on_white.image == white))
    assert np.array_equal(on_white.health, on_black.health)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_free_half_of_a_half_occluded_image_stays_unchanged(seed: int) -> None:
    image = picture_with_detail()
    picture = camera_corruption.half_occluded(image, np.random.default_rng(seed))
    assert picture.health.mean() == pytest.approx(0.5, abs=0.02)
    left, right = picture.health[:, :13], picture.health[:, 15:]
    assert sorted((float(left.max()), float(right.max()))) == [0.0, 1.0]
    kept = slice(60, None) if right.all() else slice(0, 52)
    assert np.array_equal(picture.image[:, kept], image[:, kept])


def test_a_frozen_camera_shows_the_earlier_image_with_health_that_falls_with_time() -> None:
    now, old = picture_with_detail(0), picture_with_detail(1)
    today = labelled(now, 2 * 10**9)
    health = []
    for milliseconds in (50, 500, 1500):
        earlier = labelled(old, 2 * 10**9 - milliseconds * 10**6)
        picture = camera_corruption.frozen(today.frame.cameras[0], today, earlier)
        assert picture is not None
        assert np.array_equal(picture.image, old)
        health.append(float(picture.health.mean()))
    assert 1 > health[0] > health[1] > health[2] > 0


def test_a_frozen_cameras_health_falls_with_the_vehicles_motion() -> None:
    today = labelled(picture_with_detail(0), 10**9)
    driven, turned = np.eye(4), np.eye(4)
    driven[0, 3] = -3.0
    turned[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    standing, after_driving, after_turning = (
        camera_corruption.frozen(today.frame.cameras[0], today, labelled(picture_with_detail(1), 9 * 10**8, pose))
        for pose in (np.eye(4), driven, turned)
    )
    assert standing is not None
    assert after_driving is not None
    assert after_turning is not None
    assert standing.health.mean() > 2 * max(after_driving.health.mean(), after_turning.health.mean())


def test_a_camera_does_not_freeze_on_a_later_frame_or_on_an_image_of_another_size() -> None:
    today = labelled(picture_with_detail(), 10**9)
    with pytest.raises(ValueError, match="needed an earlier one"):
        camera_corruption.frozen(today.frame.cameras[0], today, labelled(picture_with_detail(), 10**9))
    other = labelled(picture_with_detail(size=(56, 32)), 5 * 10**8)
    assert camera_corruption.frozen(today.frame.cameras[0], today, other) is None
    elsewhere = dataclasses.replace(today.frame.cameras[0], name="back")
    assert camera_corruption.frozen(elsewhere, today, labelled(picture_with_detail(), 5 * 10**8)) is None


def test_blur_removes_detail_and_over_exposure_saturates_bright_places() -> None:
    image = picture_with_detail()
    smeared = camera_corruption.blurred(image, 1.0, np.random.default_rng(0)).image
    assert cv2.Laplacian(smeared, cv2.CV_64F).var() < 0.3 * cv2.Laplacian(image, cv2.CV_64F).var()
    exposed = camera_corruption.over_exposed(image, 0.6)
    assert (exposed.image.astype(int) >= image).all()
    white = cv2.resize(
        (exposed.image == 255).all(-1).astype(np.float32), HEALTH_GRID[::-1], interpolation=cv2.INTER_AREA
    )
    assert exposed.health[white == 1].max() == 0
    assert exposed.health[white == 0].min() == 1
