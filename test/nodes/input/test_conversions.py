"""Messages of any layout become arrays; errors name what cannot be used."""

import math
from array import array

import cv2
import numpy as np
import pytest
from cv_bridge import CvBridge
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField

from aqr_perception.nodes.input.conversions import picture_from_message, points_from_message
from aqr_perception.nodes.input.message_error import MessageError

NUMPY_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
SIGNED = (1, 3, 5, 7, 8)


def cloud(
    values: dict[str, np.ndarray],
    datatypes: dict[str, int] | None = None,
    gaps: tuple[int, ...] = (),
    rows: int = 1,
    row_padding: int = 0,
    big_endian: bool = False,
) -> PointCloud2:
    """Return a point cloud as a driver may send it: fields in this order with gaps between them, in padded rows."""
    count = len(next(iter(values.values())))
    order = ">" if big_endian else "<"
    fields, formats, offset = [], [], 0
    for index, name in enumerate(values):
        datatype = (datatypes or {}).get(name, PointField.FLOAT32)
        offset += gaps[index] if index < len(gaps) else 0
        fields.append(PointField(name=name, offset=offset, datatype=datatype, count=1))
        formats.append(order + NUMPY_TYPES[datatype])
        offset += np.dtype(NUMPY_TYPES[datatype]).itemsize
    point_step = offset + (gaps[-1] if gaps else 0)
    layout = {"names": list(values), "formats": formats, "offsets": [f.offset for f in fields], "itemsize": point_step}
    records = np.zeros(count, np.dtype(layout))
    for name, column in values.items():
        records[name] = column
    lines = records.view(np.uint8).reshape(rows, -1)
    lines = np.pad(lines, ((0, 0), (0, row_padding)), constant_values=0xAB)
    return PointCloud2(
        height=rows,
        width=count // rows,
        fields=fields,
        is_bigendian=big_endian,
        point_step=point_step,
        row_step=lines.shape[1],
        data=array("B", lines.tobytes()),
    )


@st.composite
def laid_out_clouds(draw: st.DrawFn) -> tuple[PointCloud2, np.ndarray]:
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    count = rows * columns
    names = draw(st.permutations(["x", "y", "z", draw(st.sampled_from(["intensity", "i", "reflectivity"])), "ring"]))
    column = st.lists(st.integers(-100, 100), min_size=count, max_size=count)
    values = {name: np.array(draw(column)) for name in names}
    datatypes = {name: draw(st.sampled_from(SIGNED)) for name in names}
    gaps = tuple(draw(st.lists(st.integers(0, 5), min_size=6, max_size=6)))
    message = cloud(values, datatypes, gaps, rows, draw(st.integers(0, 7)), draw(st.booleans()))
    intensity = next(name for name in names if name not in ("x", "y", "z", "ring"))
    return message, np.stack([values["x"], values["y"], values["z"], values[intensity]], axis=1)


@given(laid_out_clouds())
@settings(max_examples=80, deadline=None)
def test_points_survive_any_field_order_padding_type_and_byte_order(case: tuple[PointCloud2, np.ndarray]) -> None:
    message, expected = case
    before = bytes(message.data)
    points = points_from_message(message, "/points")
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points, expected)
    assert bytes(message.data) == before, "the message is not changed"


def test_points_that_are_not_finite_are_dropped() -> None:
    values = {name: np.array([1.0, math.nan, 3.0, 4.0]) for name in ("x", "y", "z")}
    values["y"] = np.array([1.0, 2.0, math.inf, 4.0])
    values["intensity"] = np.array([10.0, 20.0, 30.0, math.nan])
    points = points_from_message(cloud(values), "/points")
    np.testing.assert_array_equal(points, [[1, 1, 1, 10], [4, 4, 4, 0]])


def test_float64_coordinates_beyond_float32_are_dropped() -> None:
    values = {name: np.array([1e300, 2.0]) for name in ("x", "y", "z")}
    points = points_from_message(cloud(values, dict.fromkeys("xyz", PointField.FLOAT64)), "/points")
    np.testing.assert_array_equal(points, [[2, 2, 2, 0]])


def test_without_an_intensity_field_it_is_zero() -> None:
    points = points_from_message(cloud({name: np.ones(3) for name in ("z", "x", "y")}), "/points")
    np.testing.assert_array_equal(points, [[1, 1, 1, 0]] * 3)


@pytest.mark.parametrize(
    "message", [cloud({n: np.ones(0) for n in "xyz"}), cloud({n: np.full(2, math.nan) for n in "xyz"})]
)
def test_an_empty_point_cloud_is_valid(message: PointCloud2) -> None:
    assert points_from_message(message, "/points").shape == (0, 4)


def test_a_point_cloud_without_x_is_named() -> None:
    message = cloud({"y": np.ones(2), "z": np.ones(2), "range": np.ones(2)})
    with pytest.raises(
        MessageError, match=r"^/points: point cloud without x: found fields y, z, range, needed x, y, z; "
    ):
        points_from_message(message, "/points")


def test_a_point_cloud_with_too_few_bytes_is_named() -> None:
    message = cloud({name: np.ones(8) for name in "xyz"}, rows=2)
    message.data = message.data[:-1]
    with pytest.raises(MessageError, match=r"incomplete point cloud: found 95 bytes.*2 rows of 4 points of 12 bytes"):
        points_from_message(message, "/points")


@pytest.mark.parametrize("change", [{"offset": 10}, {"datatype": 77}, {"count": 0}])
def test_a_field_that_does_not_fit_the_point_is_named(change: dict[str, int]) -> None:
    message = cloud({name: np.ones(2) for name in "xyz"})
    for name, value in change.items():
        setattr(message.fields[2], name, value)
    with pytest.raises(MessageError, match=r"broken point layout: found .*z \(datatype"):
        points_from_message(message, "/points")


def test_an_unknown_type_of_an_unused_field_is_ignored() -> None:
    message = cloud({name: np.ones(2) for name in ("x", "y", "z", "label")})
    message.fields[3].datatype = 77
    assert len(points_from_message(message, "/points")) == 2


COLOUR = (30, 120, 210)  # blue, green, red


def plain_picture(width: int = 64, height: int = 32) -> np.ndarray:
    return np.full((height, width, 3), COLOUR, np.uint8)


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "bgra8", "rgba8", "bgr16", "rgb16", "yuv422", "yuv422_yuy2"])
def test_colours_survive_every_colour_encoding(encoding: str) -> None:
    codes = {
        "rgb8": cv2.COLOR_BGR2RGB,
        "rgba8": cv2.COLOR_BGR2RGBA,
        "bgra8": cv2.COLOR_BGR2BGRA,
        "rgb16": cv2.COLOR_BGR2RGB,
        "yuv422": cv2.COLOR_BGR2YUV_UYVY,
        "yuv422_yuy2": cv2.COLOR_BGR2YUV_YUY2,
    }
    pixels = plain_picture()
    sent = cv2.cvtColor(pixels, codes[encoding]) if encoding in codes else pixels
    if encoding.endswith("16"):
        sent = sent.astype(np.uint16) * 256
    message = CvBridge().cv2_to_imgmsg(sent, encoding=encoding)
    decoded = picture_from_message(message, "/image")
    assert decoded.full_size == (64, 32)
    assert decoded.pixels.dtype == np.uint8
    assert np.abs(decoded.pixels.astype(int) - pixels).max() <= 3


def test_grey_and_bayer_images_become_bgr() -> None:
    grey = np.full((16, 24), 77, np.uint8)
    for encoding in ("mono8", "bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"):
        pixels = picture_from_message(CvBridge().cv2_to_imgmsg(grey, encoding=encoding), "/image").pixels
        np.testing.assert_array_equal(pixels, np.full((16, 24, 3), 77, np.uint8), err_msg=encoding)


def test_the_padding_of_rows_is_removed() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    data = np.pad(pixels.reshape(5, 21), ((0, 0), (0, 11)), constant_values=255)
    message = Image(height=5, width=7, encoding="bgr8", step=32, data=array("B", data.tobytes()))
    np.testing.assert_array_equal(picture_from_message(message, "/image").pixels, pixels)


@pytest.mark.parametrize("encoding", ["", "h264", "32FC1", "16UC1", "bgr9"])
def test_wrong_encodings_are_named(encoding: str) -> None:
    message = Image(height=4, width=4, encoding=encoding, step=16, data=array("B", bytes(64)))
    with pytest.raises(MessageError, match=rf"^/image: wrong encoding: found '{encoding}', needed"):
        picture_from_message(message, "/image")


def test_an_encoding_that_does_not_fit_the_step_is_named() -> None:
    message = Image(height=4, width=4, encoding="bgr8", step=4, data=array("B", bytes(16)))
    with pytest.raises(MessageError, match=r"^/image: "):
        picture_from_message(message, "/image")


def test_an_incomplete_raw_image_is_named() -> None:
    message = Image(height=4, width=4, encoding="bgr8", step=12, data=array("B", bytes(47)))
    with pytest.raises(
        MessageError, match=r"incomplete image: found 4 x 4, step 12, 47 bytes, needed at least 48 bytes"
    ):
        picture_from_message(message, "/image")


def compressed(extension: str, pixels: np.ndarray, kind: str = "") -> CompressedImage:
    encoded = cv2.imencode(extension, pixels)[1].tobytes()
    return CompressedImage(format=kind or f"bgr8; {extension[1:]} compressed bgr8", data=array("B", encoded))


@given(st.integers(8, 700), st.integers(0, 400), st.sampled_from([".jpg", ".png"]))
@settings(max_examples=40, deadline=None)
def test_images_are_decoded_at_the_smallest_scale_that_the_model_can_use(width: int, need: int, kind: str) -> None:
    picture = picture_from_message(compressed(kind, plain_picture(width, 8)), "/image", need)
    decoded = picture.pixels.shape[1]
    assert picture.full_size == (width, 8)
    assert decoded >= min(width, need)
    # OpenCV rounds the widths of reduced JPEGs up, and of reduced PNGs down.
    possible = [factor for factor in (1, 2, 4, 8) if decoded in (width // factor, -(-width // factor))]
    if need == 0:
        assert 1 in possible
    else:
        assert any(factor == 8 or width // (2 * factor) < need for factor in possible), "half of it is large enough"
    assert np.abs(picture.pixels.astype(int) - COLOUR).max() <= 4


@given(st.floats(0, 1, exclude_max=True), st.sampled_from([".jpg", ".png"]), st.integers(0, 800))
@settings(max_examples=60, deadline=None)
def test_an_image_truncated_anywhere_is_refused(fraction: float, kind: str, need: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    message = compressed(kind, pixels)
    message.data = message.data[: int(len(message.data) * fraction)]
    with pytest.raises(MessageError, match=r"^/image: (truncated|wrong compressed format)"):
        picture_from_message(message, "/image", need)


def test_an_embedded_preview_does_not_hide_a_truncated_jpeg() -> None:
    jpeg = cv2.imencode(".jpg", plain_picture())[1].tobytes()
    preview = b"Exif\0\0" + jpeg
    with_preview = jpeg[:2] + b"\xff\xe1" + (len(preview) + 2).to_bytes(2, "big") + preview + jpeg[2:]
    message = CompressedImage(format="jpeg", data=array("B", with_preview))
    assert picture_from_message(message, "/image").full_size == (64, 32)
    message.data = message.data[:-2]
    with pytest.raises(MessageError, match=r"^/image: truncated JPEG: found \d+ bytes without an end"):
        picture_from_message(message, "/image")


def test_bytes_after_the_end_of_a_jpeg_are_ignored() -> None:
    message = compressed(".jpg", plain_picture())
    message.data.extend(bytes(37))
    assert picture_from_message(message, "/image").full_size == (64, 32)


def test_an_unknown_compression_is_named() -> None:
    message = CompressedImage(format="h264", data=array("B", b"\x00\x00\x00\x01gop"))
    with pytest.raises(MessageError, match=r"wrong compressed format: found 7 bytes that start with 00 00 00 01"):
        picture_from_message(message, "/image")


def test_a_compressed_bayer_mosaic_is_demosaiced_at_full_size() -> None:
    mosaic = np.zeros((32, 64), np.uint8)
    mosaic[0::2, 0::2] = 200  # the red cells of RGGB
    message = compressed(".png", mosaic, "bayer_rggb8; png compressed ")
    pixels = picture_from_message(message, "/image", 16).pixels
    assert pixels.shape == (32, 64, 3)
    np.testing.assert_array_equal(pixels[10, 10], [0, 0, 200])
