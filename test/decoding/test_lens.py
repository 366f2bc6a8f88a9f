# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The pinhole model of an image, from its CameraInfo."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from aqr_perception.byte_cache import ByteCache
from aqr_perception.decoding import lens
from aqr_perception.decoding.camera_images import Picture
from aqr_perception.decoding.lens import pinhole_picture
from aqr_perception.decoding.message_error import MessageError
from aqr_perception.geometry import project

INTRINSICS = np.array([[300.0, 0.0, 315.0], [0.0, 310.0, 242.0], [0.0, 0.0, 1.0]])
DISTORTIONS = [
    ("plumb_bob", [-0.3, 0.09, 0.001, -0.002, 0.0]),
    ("rational_polynomial", [-0.25, 0.07, 0.001, -0.001, 0.01, 0.05, -0.01, 0.002]),
    ("equidistant", [-0.02, 0.01, -0.003, 0.001]),
]


def info(matrix: np.ndarray = INTRINSICS, size: tuple[int, int] = (640, 480), **fields: object) -> CameraInfo:
    projection = np.c_[matrix, np.zeros(3)]
    return CameraInfo(width=size[0], height=size[1], k=matrix.reshape(-1), p=projection.reshape(-1), **fields)


def picture(size: tuple[int, int] = (640, 480), full_size: tuple[int, int] | None = None) -> Picture:
    return Picture(np.zeros((size[1], size[0], 3), np.uint8), full_size or size)


@given(st.sampled_from([1, 2, 4, 8]), st.booleans())
@settings(deadline=None)
def test_intrinsics_follow_the_scale_of_decoding(factor: int, rectified: bool) -> None:
    seen = picture((640 // factor, 480 // factor), (640, 480))
    found = pinhole_picture(seen, info(), rectified, "/info").intrinsics
    np.testing.assert_allclose(found, np.diag([1 / factor, 1 / factor, 1]) @ INTRINSICS)


@given(
    st.integers(1, 4),
    st.tuples(st.integers(0, 200), st.integers(0, 200)),
    st.tuples(st.integers(20, 60), st.integers(20, 60)),
    st.tuples(st.floats(-0.5, 0.5), st.floats(-0.4, 0.4)),
)
@settings(deadline=None)
def test_region_of_interest_and_binning_move_pixels_as_they_move_intrinsics(
    binning: int, corner: tuple[int, int], bins: tuple[int, int], ray: tuple[float, float]
) -> None:
    roi = RegionOfInterest(x_offset=corner[0], y_offset=corner[1], width=bins[0] * binning, height=bins[1] * binning)
    described = info(binning_x=binning, binning_y=binning, roi=roi)
    point = np.array([[*ray, 1.0]])
    full, _ = project(INTRINSICS, point)
    seen, _ = project(pinhole_picture(picture(bins), described, True, "/info").intrinsics, point)
    np.testing.assert_allclose(seen, (full - corner) / binning, atol=1e-9)


def test_binning_without_a_region_of_interest_scales_the_whole() -> None:
    found = pinhole_picture(picture((320, 240)), info(binning_x=2, binning_y=2), False, "/info").intrinsics
    np.testing.assert_allclose(found, np.diag([0.5, 0.5, 1]) @ INTRINSICS)


@pytest.mark.parametrize(("model", "coefficients"), DISTORTIONS)
@pytest.mark.parametrize("factor", [1, 2])
def test_an_undistorted_image_shows_points_where_the_pinhole_model_says(
    model: str, coefficients: list[float], factor: int
) -> None:
    points = np.array([[-0.55, -0.4, 1.0], [0.6, 0.35, 1.0], [0.0, 0.45, 1.0], [0.3, -0.2, 1.0]])
    if model == "equidistant":
        pixels, _ = cv2.fisheye.projectPoints(
            points[None], np.zeros(3), np.zeros(3), INTRINSICS, np.array(coefficients)
        )
    else:
        pixels, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), INTRINSICS, np.array(coefficients))
    for point, (u, v) in zip(points, pixels.reshape(-1, 2), strict=True):
        raw = np.zeros((480, 640, 3), np.uint8)
        cv2.circle(raw, (round(u * 16), round(v * 16)), 5 * 16, (255, 255, 255), -1, shift=4)
        small = cv2.resize(raw, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
        described = info(distortion_model=model, d=coefficients)
        view = pinhole_picture(Picture(small, (640, 480)), described, False, "/info")
        weights = view.pixels[..., 0].astype(float)
        rows, columns = np.indices(weights.shape)
        centre = np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum()
        expected, _ = project(view.intrinsics, point[None])
        assert np.abs(centre - expected[0]).max() < 1.0


def test_calibrations_without_end_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = ByteCache(3 * 640 * 480 * 6, lambda _, one: one.cells.nbytes + one.weights.nbytes)
    monkeypatch.setattr(lens, "_maps", maps)
    made = []
    make = lens._undistortion_maps
    monkeypatch.setattr(lens, "_undistortion_maps", lambda *of: made.append(of) or make(*of))
    for index in range(10):
        changed = info(d=[0.01 * (index + 1), 0, 0, 0], distortion_model="plumb_bob")
        for _ in range(2):
            pinhole_picture(picture(), changed, False, "/info")
    assert len(made) == 10 and len(maps) == 3 and maps.bytes == 3 * 640 * 480 * 6


def test_an_image_without_distortion_is_not_changed() -> None:
    for coefficients in ([], [0.0] * 5):
        seen = picture()
        found = pinhole_picture(seen, info(distortion_model="plumb_bob", d=coefficients), False, "/info")
        assert found.pixels is seen.pixels


def test_a_rectified_image_has_the_projection_matrix_and_no_distortion() -> None:
    described = info(distortion_model="plumb_bob", d=[-0.3, 0.1, 0.0, 0.0, 0.0])
    described.p = np.array([[200.0, 0, 300, -24], [0, 200, 200, 0], [0, 0, 1, 0]]).reshape(-1)
    seen = picture()
    found = pinhole_picture(seen, described, True, "/info")
    assert found.pixels is seen.pixels
    np.testing.assert_array_equal(found.intrinsics, [[200, 0, 300], [0, 200, 200], [0, 0, 1]])
    np.testing.assert_allclose(found.baseline, [-0.12, 0, 0])


@pytest.mark.parametrize("value", [0.0, float("nan")])
@pytest.mark.parametrize("rectified", [False, True])
def test_intrinsics_of_zero_or_nan_are_named(value: float, rectified: bool) -> None:
    name = "P" if rectified else "K"
    with pytest.raises(MessageError, match=rf"^/info: zero intrinsics: found {name} with fx = {value:g}") as caught:
        pinhole_picture(picture(), info(np.full((3, 3), value)), rectified, "/info")
    assert f"`rectified` to {str(not rectified).lower()}" in str(caught.value)


@pytest.mark.parametrize("coefficients", [[], [0.0] * 4])
def test_a_fisheye_without_coefficients_is_still_a_fisheye(coefficients: list[float]) -> None:
    point = np.array([[0.6, -0.3, 1.0]])
    pixel = cv2.fisheye.projectPoints(point[None], np.zeros(3), np.zeros(3), INTRINSICS, np.zeros(4))[0].reshape(2)
    expected, _ = project(INTRINSICS, point)
    assert np.abs(pixel - expected).max() > 10, "the point is where the two models differ"
    raw = np.zeros((480, 640, 3), np.uint8)
    cv2.circle(raw, tuple(np.round(pixel * 16).astype(int).tolist()), 5 * 16, (255, 255, 255), -1, shift=4)
    described = info(distortion_model="equidistant", d=coefficients)
    rows, columns = np.nonzero(pinhole_picture(Picture(raw, (640, 480)), described, False, "/info").pixels[..., 0])
    assert np.abs([columns.mean(), rows.mean()] - expected[0]).max() < 1.5


@pytest.mark.parametrize("turn", [[0.0, 0.1, 0.0], [0.05, -0.08, 0.03]])
def test_a_raw_stereo_image_is_turned_to_the_rectified_camera(turn: list[float]) -> None:
    rotation, _ = cv2.Rodrigues(np.array(turn))
    point = np.array([[0.2, -0.1, 1.0]])  # in the rectified camera, which TF places
    (pixel,), _ = project(INTRINSICS, point @ rotation)
    raw = np.zeros((480, 640, 3), np.uint8)
    cv2.circle(raw, tuple(np.round(pixel * 16).astype(int).tolist()), 5 * 16, (255, 255, 255), -1, shift=4)
    view = pinhole_picture(Picture(raw, (640, 480)), info(r=rotation.reshape(-1)), False, "/info")
    rows, columns = np.nonzero(view.pixels[..., 0])
    expected, _ = project(view.intrinsics, point)
    assert np.abs([columns.mean(), rows.mean()] - expected[0]).max() < 1.5
    assert pinhole_picture(picture(), info(r=rotation.reshape(-1)), True, "/info").pixels.max() == 0


@pytest.mark.parametrize("rotation", [np.full(9, np.nan), np.diag([1.0, 2, 1]), np.diag([-1.0, 1, -1])], ids=str)
def test_a_rotation_that_is_none_is_named(rotation: np.ndarray) -> None:
    with pytest.raises(MessageError, match="implausible rectification: found R = "):
        pinhole_picture(picture(), info(r=rotation.reshape(-1)), False, "/info")


@pytest.mark.parametrize("model", ["thin_prism", "none", "PLUMB_BOB", "x" * 100_000])
def test_an_unknown_model_is_refused_even_without_coefficients(model: str) -> None:
    with pytest.raises(MessageError, match="unknown distortion") as caught:
        pinhole_picture(picture(), info(distortion_model=model, d=[0.0] * 5), False, "/info")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [
        ("plumb_bob", [1e300] * 5),
        ("plumb_bob", [-1e5, 1e9, 0.0, 0.0, 0.0]),
        ("plumb_bob", [0.0, 0.0, 500.0, 500.0, 0.0]),
        ("equidistant", [1e300] * 4),
        ("rational_polynomial", [0.0] * 12 + [1.5707963, 1.5707963]),
    ],
)
def test_absurd_coefficients_are_named(model: str, coefficients: list[float]) -> None:
    with pytest.raises(MessageError, match="implausible distortion: found D = "):
        pinhole_picture(picture(), info(distortion_model=model, d=coefficients), False, "/info")


def with_entry(row: int, column: int, value: float) -> np.ndarray:
    matrix = INTRINSICS.copy()
    matrix[row, column] = value
    return matrix


@pytest.mark.parametrize(
    "matrix",
    [
        np.array([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]]),
        np.diag([0.5, 0.6, 1.0]),
        np.diag([1e308, 1e308, 1.0]),
        np.diag([300.0, 300.0, 1e-308]),
        with_entry(0, 2, 1e7),
        with_entry(1, 2, -1e7),
        with_entry(0, 1, 1e5),
        with_entry(1, 0, 5.0),
        with_entry(2, 0, 0.5),
        with_entry(0, 0, 1.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("rectified", [False, True])
def test_a_matrix_that_no_camera_has_is_named(matrix: np.ndarray, rectified: bool) -> None:
    with pytest.raises(MessageError, match=rf"implausible intrinsics: found {'P' if rectified else 'K'} = \[\["):
        pinhole_picture(picture(), info(matrix), rectified, "/info")


def stereo(column: list[float]) -> CameraInfo:
    described = info()
    described.header.frame_id = "right_optical"
    described.p = np.c_[INTRINSICS, column].reshape(-1)
    return described


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e30])
def test_a_baseline_that_is_none_is_named(value: float) -> None:
    with pytest.raises(MessageError, match="implausible baseline"):
        pinhole_picture(picture(), stereo([value, 0, 0]), True, "/info")


def test_a_baseline_is_applied_with_a_doubt_that_says_how_far_or_left_to_tf() -> None:
    doubts: list[MessageError] = []
    described = stereo([-300 * 0.12, 0, 0])
    found = pinhole_picture(picture(), described, True, "/info", doubts=doubts)
    np.testing.assert_allclose(found.baseline, [-0.12, 0, 0])
    assert [doubt.problem for doubt in doubts] == ["baseline in camera_info"]
    assert "0.120 m from its TF frame 'right_optical'" in str(doubts[0]) and "`baseline_in_tf`" in str(doubts[0])
    doubts.clear()
    found = pinhole_picture(picture(), described, True, "/info", baseline_in_tf=True, doubts=doubts)
    assert not found.baseline.any() and not doubts


@pytest.mark.parametrize(
    "changes",
    [
        {"binning_x": 700, "binning_y": 700},
        {"roi": RegionOfInterest(width=2**32 - 1, height=2**32 - 1)},
        {"roi": RegionOfInterest(x_offset=600, width=100, height=480)},
        {"roi": RegionOfInterest(width=1, height=1), "binning_x": 2, "binning_y": 2},
        {"binning_x": 2**32 - 1},
    ],
    ids=str,
)
def test_regions_and_binning_that_leave_no_pixel_are_named(changes: dict[str, object]) -> None:
    described = info()
    for name, value in changes.items():
        setattr(described, name, value)
    with pytest.raises(MessageError, match=r"wrong image size: found 640 x 480, ROI .*needed a region inside"):
        pinhole_picture(picture(), described, False, "/info")


def test_a_calibration_of_another_size_is_a_doubt_and_one_of_a_much_larger_size_is_refused() -> None:
    doubts: list[MessageError] = []
    pinhole_picture(picture((320, 240)), info(), False, "/info", doubts=doubts)
    assert [doubt.problem for doubt in doubts] == ["camera_info of another size"]
    with pytest.raises(MessageError, match="wrong image size"):
        pinhole_picture(picture((64, 48)), info(), False, "/info")


def test_an_unknown_distortion_model_is_named() -> None:
    with pytest.raises(MessageError, match="unknown distortion: found distortion_model 'thin_prism' with D = "):
        pinhole_picture(picture(), info(distortion_model="thin_prism", d=[0.1] * 5), False, "/info")
    with pytest.raises(MessageError, match="unknown distortion"):
        pinhole_picture(picture(), info(distortion_model="equidistant", d=[0.1] * 5), False, "/info")


def test_an_image_of_another_shape_than_its_calibration_is_named() -> None:
    with pytest.raises(MessageError, match=r"wrong image size: found 640 x 480 pixels, needed .* 640 x 360"):
        pinhole_picture(picture((640, 360)), info(), False, "/info")


def test_a_resized_image_of_the_same_shape_is_scaled() -> None:
    found = pinhole_picture(picture((320, 240)), info(), False, "/info").intrinsics
    np.testing.assert_allclose(found, np.diag([0.5, 0.5, 1]) @ INTRINSICS)


def test_an_image_that_is_too_large_to_undistort_is_named() -> None:
    pixels = np.broadcast_to(np.uint8(0), (4097, 6144, 3))
    info = CameraInfo(width=6144, height=4097, distortion_model="plumb_bob", d=[-0.3, 0.1, 0.0, 0.0, 0.0])
    info.k = [5000.0, 0.0, 3072.0, 0.0, 5000.0, 2048.0, 0.0, 0.0, 1.0]
    with pytest.raises(MessageError, match="too large to undistort: found 25171968 pixels, needed at most 25165824"):
        pinhole_picture(Picture(pixels, (6144, 4097)), info, False, "/info")
