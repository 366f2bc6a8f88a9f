# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Data that is valid but probably not what the user means is named, with the setting that would fit."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqr_perception.decoding.message_error import MessageError
from aqr_perception.decoding.plausibility import (
    camera_doubt,
    check_distances,
    drop_absurd_intensities,
    intensity_doubt,
)
from aqr_perception.geometry import invert, rigid_transform

OPTICAL = [-0.5, 0.5, -0.5, 0.5]  # x right, y down, z forward in a frame with x forward, y left, z up
LEVEL = np.random.default_rng(0).uniform(0.01, 1.0, 3000).astype(np.float32)


@given(st.floats(2.0, 1e5))
def test_the_scale_that_would_fit_is_named_and_fits(top: float) -> None:
    intensities = LEVEL * np.float32(top)
    doubt = intensity_doubt(intensities, 1.0, ["intensity"], "/points")
    if doubt is None:
        assert top <= 270
        return
    assert top > 255 and doubt.problem == "intensity out of range"
    (scale,) = re.findall(r"`intensity_scale` ([0-9.e-]+) would fit", str(doubt))
    assert intensity_doubt(intensities, float(scale), ["intensity"], "/points") is None
    assert 230 < intensities.max() * float(scale) < 280


def test_intensities_of_0_to_1_need_a_scale_of_255() -> None:
    assert "`intensity_scale` 255 would fit" in str(intensity_doubt(LEVEL, 1.0, [], "/points"))
    assert intensity_doubt(LEVEL, 255.0, [], "/points") is None


def test_a_few_bright_returns_are_no_doubt() -> None:
    intensities = 200 * LEVEL
    intensities[:10] = 5000
    assert intensity_doubt(intensities, 1.0, [], "/points") is None


def test_reflectivity_is_offered_where_the_point_cloud_has_it() -> None:
    doubt = intensity_doubt(LEVEL * 5000, 1.0, ["x", "intensity", "reflectivity"], "/points")
    assert "the field `reflectivity` may fit better" in str(doubt)


@pytest.mark.parametrize(
    ("intensities", "problem"),
    [(np.zeros(500), "constant intensity"), (200 * LEVEL - 100, "negative intensity"), (LEVEL[:50], None)],
)
def test_intensities_without_a_scale_are_named(intensities: np.ndarray, problem: str | None) -> None:
    doubt = intensity_doubt(intensities.astype(np.float32), 1.0, [], "/points")
    assert (None if doubt is None else doubt.problem) == problem


def test_intensities_that_would_hide_objects_become_zero() -> None:
    intensities = np.array([1.0, 65_535.0, 65_536.0, 9e5, -9e5, 255.0], np.float32)
    doubt = drop_absurd_intensities(intensities, "/points")
    np.testing.assert_array_equal(intensities, [1, 65_535, 0, 0, 0, 255])
    assert str(doubt).startswith("/points: absurd intensities: found 3 of 6 beyond 65535 after scaling")
    assert drop_absurd_intensities(intensities, "/points") is None


def test_points_in_millimetres_are_refused() -> None:
    points = np.random.default_rng(0).uniform(-60, 60, (1000, 3)).astype(np.float32)
    check_distances(points, "/points")
    check_distances(points[:0], "/points")
    with pytest.raises(MessageError, match=r"^/points: implausible distances: found a median distance of \d+ m"):
        check_distances(points * 1000, "/points")


@pytest.mark.parametrize("roll", [0.0, 20.0])
@pytest.mark.parametrize("pitch", [-30.0, 0.0, 45.0])
def test_an_optical_frame_is_no_doubt(pitch: float, roll: float) -> None:
    turn = np.radians([pitch, roll]) / 2
    tilt = rigid_transform([0, 0, 0], [np.sin(turn[1]), 0, 0, np.cos(turn[1])])
    tilt = tilt @ rigid_transform([0, 0, 0], [0, np.sin(turn[0]), 0, np.cos(turn[0])])
    mount = tilt @ rigid_transform([1.5, 0.2, 1.4], OPTICAL)
    assert camera_doubt(invert(mount), "front_optical", "/front") is None


@pytest.mark.parametrize(
    ("rotation", "problem"),
    [
        ([0.0, 0, 0, 1], "camera frame is not optical"),
        ([0.0, 0, 0.7071068, 0.7071068], "camera frame is not optical"),
        ([0.5, 0.5, 0.5, 0.5], "image not upright"),
        ([0.0, 0.7071068, 0.0, 0.7071068], "image not upright"),
    ],
    ids=["body", "turned body", "upside down", "on its side"],
)
def test_a_camera_frame_that_is_not_optical_is_a_doubt(rotation: list[float], problem: str) -> None:
    doubt = camera_doubt(invert(rigid_transform([1.5, 0.2, 1.4], rotation)), "camera_link", "/front")
    assert doubt is not None and doubt.problem == problem
    assert "'camera_link'" in str(doubt) and "optical_frame" in str(doubt)


@pytest.mark.parametrize("place", [1e4, np.inf, np.nan])
def test_a_camera_far_from_the_vehicle_is_refused(place: float) -> None:
    extrinsics = invert(rigid_transform([0, 0, 0], OPTICAL))
    extrinsics[0, 3] = place
    with pytest.raises(MessageError, match="implausible transform"):
        camera_doubt(extrinsics, "front", "/front")
