# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Images to messages and back over all encodings, and the rules by which encodings convert to each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="no ROS 2 here", exc_type=ImportError)
cv_bridge = pytest.importorskip("cv_bridge", reason="cv_bridge is not built or installed")
import cv2  # noqa: E402
from cv_bridge import CvBridge, CvBridgeError  # noqa: E402
from cv_bridge.conversion import CV_MAT_CNWrap, CV_MAT_DEPTHWrap, cvtColor2, getCvType  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

BRIDGE = CvBridge()
COLORS = ["rgb8", "bgr8", "rgba8", "bgra8", "rgb16", "bgr16", "rgba16", "bgra16", "mono8", "mono16"]
BAYER = [f"bayer_{pattern}{bits}" for pattern in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)]
YUV = ["yuv422", "yuv422_yuy2", "uyvy", "yuyv"]
GENERIC = [
    f"{depth}C{channels}" for depth in ("8U", "8S", "16U", "16S", "32S", "32F", "64F") for channels in (1, 2, 3, 4)
]
encodings = st.sampled_from(COLORS + BAYER + YUV + GENERIC + ["8U", "32F"])


def random_image(encoding, height=4, width=6, seed=0, low=0, high=127):
    dtype, channels = BRIDGE.encoding_to_dtype_with_channels(encoding)
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(low, high, size=shape).astype(dtype)


@given(encodings, st.integers(1, 5), st.integers(1, 5), st.booleans(), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_image_survives_the_way_through_a_message(encoding, height, width, big_endian, seed):
    image = random_image(encoding, height, width, seed)
    header = Header(frame_id="camera")
    message = BRIDGE.cv2_to_imgmsg(image.astype(image.dtype.newbyteorder(">" if big_endian else "<")), encoding, header)
    assert (message.height, message.width, message.encoding) == (height, width, encoding)
    assert message.header == header
    assert message.step * height == len(message.data) == image.nbytes
    decoded = BRIDGE.imgmsg_to_cv2(message)
    assert decoded.dtype == image.dtype
    assert decoded.dtype.isnative
    np.testing.assert_array_equal(decoded, image)
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message, encoding), image)


@given(encodings, st.integers(1, 5), st.integers(1, 5), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_padding_of_whole_pixels_is_left_out_and_other_padding_shifts_the_rows(encoding, height, width, padding):
    image = random_image(encoding, height, width)
    rows = np.pad(image.reshape(height, -1).view(np.uint8), ((0, 0), (0, padding)), constant_values=255)
    message = Image(height=height, width=width, encoding=encoding, step=rows.shape[1])
    message.data.frombytes(rows.tobytes())
    decoded = BRIDGE.imgmsg_to_cv2(message)
    pixel = image.nbytes // (height * width)
    if padding % pixel == 0:
        np.testing.assert_array_equal(decoded, image)
    else:  # as in the original: rows are taken to begin at whole pixels
        step = rows.shape[1] // pixel * pixel
        shifted = np.ndarray((height, width * pixel), np.uint8, rows.tobytes(), strides=(step, 1))
        assert decoded.tobytes() == shifted.tobytes()


@pytest.mark.parametrize("source", COLORS + GENERIC)
def test_encodings_convert_where_the_channels_or_the_colors_allow_it(source):
    image = random_image(source)
    for target in COLORS + GENERIC:
        same_channels = CV_MAT_CNWrap(getCvType(source)) == CV_MAT_CNWrap(getCvType(target))
        both_colors = source in COLORS and target in COLORS
        if (source in GENERIC and target in COLORS) or not (same_channels or both_colors):
            with pytest.raises(RuntimeError, match=r"color format|number of channels"):
                cvtColor2(image, source, target)
            continue
        converted = cvtColor2(image, source, target)
        assert converted.dtype == random_image(target).dtype
        assert converted.shape == random_image(target).shape
        if same_channels and (both_colors or source in GENERIC):
            # 16 bits hold 8 exactly; 8 bits hold the upper byte of 16.
            tolerance = 128 if "16" in source and "8" in target else 0
            back = cvtColor2(converted, target, source).astype(np.float64)
            assert np.abs(back - image).max() <= tolerance, f"{source} to {target} and back"


@pytest.mark.parametrize("encoding", COLORS[:8])
def test_colors_keep_their_meaning_in_every_order_and_depth(encoding):
    full = 255 if encoding.endswith("8") else 65535
    orange = {"r": full, "g": full / 5, "b": 0, "a": full}
    image = np.empty_like(random_image(encoding))
    image[:] = [orange[channel] for channel in encoding.rstrip("0123456789")]
    message = BRIDGE.cv2_to_imgmsg(image, encoding)
    assert BRIDGE.imgmsg_to_cv2(message, "bgr8")[0, 0].tolist() == [0, 51, 255]
    assert BRIDGE.imgmsg_to_cv2(message, "rgba16")[0, 0].tolist() == [65535, 13107, 0, 65535]
    gray = 0.299 * 255 + 0.587 * 51
    assert BRIDGE.imgmsg_to_cv2(message, "mono8")[0, 0] == pytest.approx(gray, abs=1)


def test_depths_scale_between_8_and_16_bits_and_saturate_elsewhere():
    assert cvtColor2(np.array([[1000]], np.uint16), "mono16", "bgr8").tolist() == [[[4, 4, 4]]]
    assert cvtColor2(np.array([[255, 1]], np.uint8), "mono8", "mono16").tolist() == [[65535, 257]]
    floats = np.array([[-7.0, 2.5, 3.5, 300.0, np.nan]], np.float32)
    assert cvtColor2(floats, "32FC1", "8UC1").tolist() == [[0, 2, 4, 255, 0]]
    assert cvtColor2(floats[:, :4], "32FC1", "8SC1").tolist() == [[-7, 2, 4, 127]]


@pytest.mark.parametrize("encoding", BAYER)
def test_bayer_mosaic_of_one_color_has_that_color(encoding):
    scale = 1 if encoding.endswith("8") else 257
    rgb = {"r": 200 * scale, "g": 100 * scale, "b": 50 * scale}
    pattern = encoding[6:10]
    tile = np.array([[rgb[pattern[0]], rgb[pattern[1]]], [rgb[pattern[2]], rgb[pattern[3]]]])
    image = np.tile(tile, (4, 4)).astype(np.uint8 if scale == 1 else np.uint16)
    color = BRIDGE.imgmsg_to_cv2(BRIDGE.cv2_to_imgmsg(image, encoding), "rgb8")
    np.testing.assert_array_equal(color, np.broadcast_to([200, 100, 50], (8, 8, 3)))
    with pytest.raises(CvBridgeError, match="Unsupported conversion"):
        BRIDGE.imgmsg_to_cv2(BRIDGE.cv2_to_imgmsg(image, encoding), "rgba8")


@pytest.mark.parametrize("encoding", YUV)
def test_yuv_brightness_is_found_in_its_byte_of_each_pixel(encoding):
    luma = 1 if encoding in ("yuv422", "uyvy") else 0
    image = np.full((2, 4, 2), 128, np.uint8)  # 128: no colour
    image[..., luma] = [[16, 60, 126, 235]] * 2
    message = BRIDGE.cv2_to_imgmsg(image, encoding)
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message, "mono8"), image[..., luma])
    assert BRIDGE.imgmsg_to_cv2(message, "bgr8")[0, 3].tolist() == [255, 255, 255]
    with pytest.raises(CvBridgeError):
        BRIDGE.imgmsg_to_cv2(BRIDGE.cv2_to_imgmsg(np.zeros((2, 2, 3), np.uint8), "bgr8"), encoding)


def test_image_shares_the_data_of_its_message():
    message = BRIDGE.cv2_to_imgmsg(np.zeros((2, 3, 3), np.uint8), "bgr8")
    BRIDGE.imgmsg_to_cv2(message)[1, 2, 0] = 9
    assert message.data[15] == 9


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"encoding": "rgb9"}, "Unrecognized image encoding"),
        ({"step": 5}, "step"),
        ({"height": 3}, "bytes in all"),
    ],
)
def test_message_that_contradicts_itself_is_refused(attributes, reason):
    message = BRIDGE.cv2_to_imgmsg(np.zeros((2, 2, 3), np.uint8), "bgr8")
    for name, value in attributes.items():
        setattr(message, name, value)
    with pytest.raises(CvBridgeError, match=reason):
        BRIDGE.imgmsg_to_cv2(message)


def test_array_that_does_not_hold_its_encoding_is_refused():
    with pytest.raises(CvBridgeError, match="incompatible type 8UC3"):
        BRIDGE.cv2_to_imgmsg(np.zeros((2, 2, 3), np.uint8), "rgba8")
    with pytest.raises(TypeError, match="numpy array"):
        BRIDGE.cv2_to_imgmsg([[1, 2], [3, 4]])
    assert issubclass(CvBridgeError, TypeError)


@pytest.mark.parametrize("encoding", COLORS + BAYER + GENERIC)
def test_pixel_types_are_those_of_opencv(encoding):
    image = np.empty_like(random_image(encoding))
    name = BRIDGE.cvtype_to_name[getCvType(encoding)]
    assert name == BRIDGE.dtype_with_channels_to_cvtype2(image.dtype, 1 if image.ndim == 2 else image.shape[2])
    assert getCvType(encoding) == getattr(cv2, f"CV_{name}")
    assert CV_MAT_DEPTHWrap(getCvType(encoding)) == getattr(cv2, f"CV_{name.split('C')[0]}")
