# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Frames with a field of a wrong shape, type or value are refused with the field's name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqr_perception.frame import CameraView, Frame
from aqr_perception.frame_checks import FrameError, usable_frame

FORWARD = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


def view(name: str = "front", **changes: Any) -> CameraView:
    intrinsics = np.array([[40.0, 0, 20], [0, 40, 12], [0, 0, 1]])
    return replace(CameraView(name, np.zeros((24, 40, 3), np.uint8), intrinsics, FORWARD), **changes)


def frame(**changes: Any) -> Frame:
    points = np.array([[1, 2, 3, 100, 0], [4, 5, 6, 0, 0.1]], np.float32)
    return replace(Frame(10**18, points, (view(), view("rear"))), **changes)


def test_a_good_frame_comes_back_as_it_is() -> None:
    good = frame(to_fixed=np.eye(4))
    checked, problems = usable_frame(good)
    assert checked is good and not problems
    empty = frame(points=np.zeros((0, 5), np.float32), cameras=())
    assert usable_frame(empty)[0] is empty


def column(index: int, *values: float) -> Callable[[Frame], Frame]:
    def change(good: Frame) -> Frame:
        points = np.tile(good.points[:1], (len(values), 1))  # type: ignore[index]
        points[:, index] = values
        return replace(good, points=points)

    return change


def points(change: Callable[[Any], Any]) -> Callable[[Frame], Frame]:
    return lambda good: replace(good, points=change(good.points))


def camera(**changes: Any) -> Callable[[Frame], Frame]:
    return lambda good: replace(good, cameras=(view(**changes), view("rear")))


BROKEN: dict[str, tuple[Callable[[Frame], Frame], str, str]] = {
    "four columns": (points(lambda p: p[:, :4]), "points", r"\(2, 4\)"),
    "one dimension": (points(lambda p: p.ravel()), "points", r"\(10,\)"),
    "double points": (points(lambda p: p.astype(np.float64)), "points", "float64"),
    "a list of points": (points(lambda p: p.tolist()), "points", "list"),
    "a point that is NaN": (column(1, 0.0, np.nan), "points", "1 of 2 that are not finite"),
    "an infinite intensity": (column(3, 0.0, np.inf), "points", "not finite"),
    "millimetres": (column(0, 1.0, 50_000.0), r"points\[:, :3\]", "50000"),
    "unscaled intensity": (column(3, 0.0, 1e6), r"points\[:, 3\]", "1e\\+06"),
    "ring index": (column(4, *range(32)), r"points\[:, 4\]", "31"),
    "ring index of four beams": (column(4, *range(4)), r"points\[:, 4\]", "ring index"),
    "absolute time": (column(4, 1.7e9, 1.7e9), r"points\[:, 4\]", "age"),
    "grey picture": (camera(image=np.zeros((24, 40), np.uint8)), r"cameras\['front'\]\.image", r"\(24, 40\)"),
    "BGRA": (camera(image=np.zeros((24, 40, 4), np.uint8)), r"cameras\['front'\]\.image", r"\(24, 40, 4\)"),
    "16 bits": (camera(image=np.zeros((24, 40, 3), np.uint16)), r"\.image", "uint16"),
    "0 to 1": (camera(image=np.zeros((24, 40, 3), np.float32)), r"\.image", "float32"),
    "channels first": (camera(image=np.zeros((3, 24, 40), np.uint8)), r"\.image", r"\(3, 24, 40\)"),
    "no pixels": (camera(image=np.zeros((0, 40, 3), np.uint8)), r"\.image", "pixel"),
    "(3, 4) extrinsics": (camera(extrinsics=FORWARD[:3]), r"\.extrinsics", r"\(3, 4\)"),
    "integer extrinsics": (camera(extrinsics=FORWARD.astype(int)), r"\.extrinsics", "int64"),
    "scaled extrinsics": (camera(extrinsics=FORWARD * np.array([[2.0], [2], [2], [1]])), r"\.extrinsics", "rigid"),
    "reflection": (camera(extrinsics=FORWARD * np.array([[-1.0], [1], [1], [1]])), r"\.extrinsics", "reflection"),
    "transposed": (
        camera(extrinsics=(FORWARD + np.array([[0, 0, 0, 1.0]] * 3 + [[0] * 4])).T),
        r"\.extrinsics",
        "last row",
    ),
    "pose in the world": (camera(extrinsics=FORWARD + 1e5 * np.eye(4, k=3)), r"\.extrinsics", "translation"),
    "(3, 4) intrinsics": (camera(intrinsics=np.eye(3, 4)), r"\.intrinsics", r"\(3, 4\)"),
    "normalised intrinsics": (
        camera(intrinsics=np.array([[0.7, 0, 0.5], [0, 0.7, 0.5], [0, 0, 1]])),
        r"\.intrinsics",
        "pixels",
    ),
    "names": (camera(name="rear"), "cameras", "'rear'"),
    "stamp in seconds": (lambda good: replace(good, stamp_ns=1.5), "stamp_ns", "nanoseconds"),
    "motion": (lambda good: replace(good, to_fixed=np.eye(3)), "to_fixed", r"\(3, 3\)"),
    "unknown motion": (lambda good: replace(good, to_fixed=np.full((4, 4), np.nan)), "to_fixed", "not finite"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_wrong_field_is_named_with_what_it_has_and_needs(name: str) -> None:
    change, field, found = BROKEN[name]
    with pytest.raises(FrameError, match=rf"{field}.*: found .*needed") as caught:
        usable_frame(change(frame()))
    assert caught.match(found)


@given(st.sampled_from(["intrinsics", "extrinsics"]), st.integers(0, 8), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_camera_with_any_number_that_is_not_finite_is_left_out(field: str, place: int, number: float) -> None:
    matrix = getattr(view(), field).copy()
    matrix.flat[place] = number
    checked, (problem,) = usable_frame(frame(cameras=(view(**{field: matrix}), view("rear"))))
    assert [left.name for left in checked.cameras] == ["rear"]
    assert f"cameras['front'].{field}" in str(problem)


def test_without_any_usable_sensor_there_is_an_error() -> None:
    broken = (view(extrinsics=FORWARD * np.nan),)
    with pytest.raises(FrameError, match="extrinsics"):
        usable_frame(frame(points=None, cameras=broken))
    assert usable_frame(frame(cameras=broken))[0].cameras == ()


def test_sensors_that_the_model_does_not_use_are_not_checked() -> None:
    odd = frame(points=np.zeros((1, 4), np.float32), cameras=(view(image=np.zeros((2, 2), np.uint8)),))
    assert usable_frame(odd, cameras=False, lidar=False)[0] is odd
