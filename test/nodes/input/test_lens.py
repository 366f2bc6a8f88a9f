"""The pinhole model of an image, from its CameraInfo."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from aqr_perception.geometry import project
from aqr_perception.nodes.input.conversions import Picture
from aqr_perception.nodes.input.lens import pinhole_picture
from aqr_perception.nodes.input.message_error import MessageError

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
