# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Whatever a message says, the result is data or a `MessageError`, soon and with little memory."""

import resource
import time
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField, RegionOfInterest

from aqr_perception.decoding.camera_images import MAX_PIXELS, Picture, picture_from_message
from aqr_perception.decoding.clouds import MAX_COORDINATE, MAX_INTENSITY, points_from_message
from aqr_perception.decoding.lens import described_size, pinhole_picture
from aqr_perception.decoding.message_error import MessageError

EXAMPLES = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])

EDGES = [
    0,
    1,
    2,
    3,
    4,
    8,
    12,
    15,
    16,
    2**15,
    2**16,
    2**24,
    2**31 - 8,
    2**31 - 4,
    2**31 - 1,
    2**31,
    2**32 - 4,
    2**32 - 1,
]
sizes = st.one_of(st.sampled_from(EDGES), st.integers(0, 40), st.integers(0, 2**32 - 1))
bytes_of_numbers = st.lists(st.floats(width=32), max_size=60).map(lambda values: np.array(values, "<f4").tobytes())
contents = st.one_of(st.binary(max_size=300), bytes_of_numbers)
numbers = st.one_of(
    st.floats(),
    st.sampled_from([0.0, 1.0, 40.0, 64.0, -1.0, 1e-300, 1e300, float("inf"), float("nan")]),
    st.floats(-50, 50),
)


@pytest.fixture(autouse=True, scope="module")
def bounded_memory() -> Iterator[None]:
    """Fail if the tests of this file need much memory at any time."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256_000, "kB"


def outcome(decode: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a decoder returns; None if it raises MessageError. Any other error fails the test."""
    start = time.process_time()
    try:
        return decode(*arguments)
    except MessageError as error:
        assert len(str(error)) < 2500 and str(error).isprintable() and error.problem
        return None
    finally:
        assert time.process_time() - start < 2.0


fields = st.builds(
    PointField,
    name=st.one_of(st.sampled_from(["x", "y", "z", "intensity", "i", "time"]), st.text(max_size=8)),
    offset=sizes,
    datatype=st.integers(0, 9),
    count=st.one_of(st.just(1), sizes),
)
usual_fields = st.just(
    [PointField(name=n, offset=4 * k, datatype=7, count=1) for k, n in enumerate(["x", "y", "z", "i"])]
)
clouds = st.builds(
    PointCloud2,
    height=st.one_of(st.just(1), sizes),
    width=sizes,
    fields=st.one_of(usual_fields, st.lists(fields, max_size=6)),
    is_bigendian=st.booleans(),
    point_step=st.one_of(st.just(16), sizes),
    row_step=sizes,
    data=contents.map(lambda data: array("B", data)),
)


@given(clouds, st.booleans())
@EXAMPLES
def test_any_point_cloud_gives_finite_points_or_an_error(message: PointCloud2, fit: bool) -> None:
    if fit and message.point_step:  # otherwise sizes hardly ever agree
        message.height, message.width = 1, min(message.width, len(message.data) // message.point_step)
    points = outcome(points_from_message, message, "/points")
    if points is None:
        return
    assert points.dtype == np.float32 and points.shape[1] == 4 and len(points) <= message.width * message.height
    assert (np.abs(points[:, :3]) <= MAX_COORDINATE).all() and (np.abs(points[:, 3]) <= MAX_INTENSITY).all()


encodings = st.one_of(
    st.sampled_from(
        ["bgr8", "rgb8", "mono8", "mono16", "rgba16", "yuv422", "bayer_rggb8", "nv12", "nv21", "bayer_gbrg16"]
    ),
    st.sampled_from(["8UC3", "8UC4294967295", "32FC1", "64FC0", "", "bayer_", "h264"]),
    st.text(max_size=12),
)
images = st.builds(
    Image,
    height=st.one_of(st.integers(0, 6), sizes),
    width=st.one_of(st.integers(0, 6), sizes),
    encoding=encodings,
    is_bigendian=st.integers(0, 255),
    step=sizes,
    data=st.binary(max_size=400).map(lambda data: array("B", data)),
)
described = st.tuples(st.one_of(st.just(0), sizes), st.one_of(st.just(0), sizes))


@given(images, described)
@EXAMPLES
def test_any_raw_image_gives_pixels_or_an_error(message: Image, size: tuple[int, int]) -> None:
    picture = outcome(picture_from_message, message, "/image", 0, size)
    if picture is not None:
        assert picture.pixels.shape == (message.height, message.width, 3) and picture.pixels.dtype == np.uint8
        assert picture.full_size == (message.width, message.height)


def encoded(extension: str, *settings: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8)
    return bytes(cv2.imencode(extension, pixels, settings)[1].tobytes())


STARTS = [
    encoded(".jpg"),
    encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    encoded(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    encoded(".png"),
]


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """Return a JPEG or PNG with some bytes replaced, mostly in its header, cut or extended."""
    data = bytearray(draw(st.sampled_from(STARTS)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.one_of(st.integers(0, 60), st.integers(0, len(data) - 1)))
        data[place] = draw(st.one_of(st.integers(0, 255), st.sampled_from([0, 255, 0xD8, 0xD9, 0xDA, 0xC0])))
    end = draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))
    return bytes(data[:end]) + draw(st.one_of(st.just(b""), st.binary(max_size=20)))


@given(
    st.one_of(spoilt(), st.binary(max_size=200), st.binary(max_size=60).map(lambda data: b"\xff\xd8" + data)),
    st.one_of(st.sampled_from(["jpeg", "bayer_rggb8; jpeg compressed ", "bayer_x; png", "h264"]), st.text(max_size=12)),
    st.integers(0, 100),
    st.one_of(st.just((0, 0)), st.just((40, 24)), described),
)
@EXAMPLES
def test_any_compressed_image_gives_pixels_or_an_error(
    data: bytes, kind: str, width: int, size: tuple[int, int]
) -> None:
    message = CompressedImage(format=kind.replace("\0", ""), data=array("B", data))
    picture = outcome(picture_from_message, message, "/image", width, size)
    if picture is not None:
        assert picture.pixels.ndim == 3 and picture.pixels.shape[2] == 3 and picture.pixels.dtype == np.uint8
        assert 0 < picture.full_size[0] * picture.full_size[1] <= MAX_PIXELS


matrices = st.lists(numbers, min_size=9, max_size=9)
good_matrix = st.just([50.0, 0.0, 32.0, 0.0, 50.0, 24.0, 0.0, 0.0, 1.0])
good_projection = st.just([50.0, 0.0, 32.0, -6.0, 0.0, 50.0, 24.0, 0.0, 0.0, 0.0, 1.0, 0.0])


@st.composite
def one_changed(draw: st.DrawFn, usual: st.SearchStrategy[list[float]]) -> list[float]:
    values = list(draw(usual))
    values[draw(st.integers(0, len(values) - 1))] = draw(numbers)
    return values


infos = st.builds(
    CameraInfo,
    height=st.one_of(st.just(48), sizes),
    width=st.one_of(st.just(64), sizes),
    distortion_model=st.one_of(
        st.sampled_from(["", "plumb_bob", "rational_polynomial", "equidistant", "none"]), st.text(max_size=9)
    ),
    d=st.one_of(st.sampled_from([[], [0.0] * 4, [0.1] * 5, [0.0] * 14]), st.lists(numbers, max_size=16)),
    k=st.one_of(good_matrix, one_changed(good_matrix), matrices),
    r=st.one_of(st.just([0.0] * 9), st.just(np.eye(3).reshape(-1).tolist()), matrices),
    p=st.one_of(good_projection, one_changed(good_projection), st.lists(numbers, min_size=12, max_size=12)),
    binning_x=st.one_of(st.just(0), sizes),
    binning_y=st.one_of(st.just(0), sizes),
    roi=st.one_of(
        st.just(RegionOfInterest()),
        st.builds(RegionOfInterest, x_offset=sizes, y_offset=sizes, width=sizes, height=sizes),
    ),
)


@given(infos, st.booleans(), st.booleans())
@EXAMPLES
def test_any_calibration_gives_finite_intrinsics_or_an_error(info: CameraInfo, rectified: bool, shrunk: bool) -> None:
    picture = Picture(np.zeros((24, 32, 3) if shrunk else (48, 64, 3), np.uint8), (64, 48))
    size = outcome(described_size, info, "/info")
    assume(size is None or max(size) >= 0)
    pinhole = outcome(pinhole_picture, picture, info, rectified, "/info")
    if pinhole is not None:
        assert pinhole.pixels.shape == picture.pixels.shape
        assert np.isfinite(pinhole.intrinsics).all() and np.isfinite(pinhole.baseline).all()
        assert min(pinhole.intrinsics[0, 0], pinhole.intrinsics[1, 1]) > 0
        np.testing.assert_allclose(pinhole.intrinsics[2], [0, 0, 1], atol=1e-2)


def test_wide_pictures_with_distortion_are_named() -> None:
    info = CameraInfo(width=40_000, height=48, d=[0.1, 0.0, 0.0, 0.0, 0.0], distortion_model="plumb_bob")
    info.k = [50_000.0, 0.0, 20_000.0, 0.0, 50_000.0, 24.0, 0.0, 0.0, 1.0]
    message = Image(width=40_000, height=48, step=120_000, encoding="bgr8", data=array("B", bytes(48 * 120_000)))
    with pytest.raises(MessageError, match="wrong image size"):
        picture_from_message(message, "/image", 0, described_size(info, "/info"))
