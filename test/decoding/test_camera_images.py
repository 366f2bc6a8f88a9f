# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Images of any encoding and compression become BGR arrays; errors name what cannot be used."""

import struct
import zlib
from array import array

import cv2
import numpy as np
import pytest
from cv_bridge import CvBridge
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage, Image

from aqr_perception.decoding.camera_images import MAX_SIDE, picture_from_message
from aqr_perception.decoding.message_error import MessageError

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
def test_an_image_truncated_anywhere_is_refused_or_has_all_its_rows(fraction: float, kind: str, need: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    message, whole = compressed(kind, pixels), compressed(kind, pixels)
    message.data = message.data[: int(len(message.data) * fraction)]
    try:
        picture = picture_from_message(message, "/image", need)
    except MessageError as error:
        name = {".jpg": "JPEG", ".png": "PNG"}[kind]
        # A cut through a segment of the header leaves a segment with a wrong length.
        assert error.problem in (f"truncated {name}", f"corrupt {name}", "wrong compressed format")
        return
    assert len(whole.data) - len(message.data) <= 3, "at most the end marker and the filling of the last byte are gone"
    np.testing.assert_array_equal(picture.pixels, picture_from_message(whole, "/image", need).pixels)


def test_an_embedded_preview_does_not_hide_a_truncated_jpeg() -> None:
    jpeg = cv2.imencode(".jpg", plain_picture())[1].tobytes()
    preview = b"Exif\0\0" + jpeg
    with_preview = jpeg[:2] + b"\xff\xe1" + (len(preview) + 2).to_bytes(2, "big") + preview + jpeg[2:]
    message = CompressedImage(format="jpeg", data=array("B", with_preview))
    assert picture_from_message(message, "/image").full_size == (64, 32)
    message.data = message.data[:-6]
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


def noise(width: int = 96, height: int = 64) -> np.ndarray:
    grain = np.random.default_rng(0).integers(0, 255, (height // 4, width // 4, 3), np.uint8)
    return cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)


# --- Sizes -------------------------------------------------------------------------------------------------------


def claiming(width: int, height: int, size: int = 4000) -> CompressedImage:
    """Return a JPEG of about `size` bytes whose header claims a width and height."""
    message = compressed(".jpg", noise())
    jpeg = bytearray(message.data)
    start = jpeg.find(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", height, width)
    jpeg[-2:-2] = bytes(max(0, size - len(jpeg)))
    message.data = array("B", bytes(jpeg))
    return message


def png_of_zeros(width: int, height: int) -> CompressedImage:
    """Return a PNG of zeros, a thousand times smaller than its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + 3 * width)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return CompressedImage(format="png", data=array("B", data))


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if OpenCV decodes: refusals come from the header."""

    def fail(*what: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", fail)


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize(("width", "height"), [(65500, 65500), (32000, 32000), (65535, 1), (1, 65535), (0, 0), (64, 0)])
def test_a_jpeg_that_claims_too_many_pixels_is_refused_from_its_header(width: int, height: int) -> None:
    with pytest.raises(MessageError, match=r"wrong image size|truncated JPEG"):
        picture_from_message(claiming(width, height), "/image", 352)


@pytest.mark.usefixtures("no_decoding")
def test_a_jpeg_with_less_than_a_bit_for_each_block_is_refused() -> None:
    with pytest.raises(MessageError, match=r"truncated JPEG: .*needed 65522 bytes for 5792 x 5792 pixels"):
        picture_from_message(claiming(5792, 5792), "/image")


@pytest.mark.usefixtures("no_decoding")
def test_a_png_is_refused_from_its_header_where_it_has_too_many_pixels_or_too_few_bytes() -> None:
    with pytest.raises(MessageError, match="wrong image size: found 7000 x 7000 pixels"):
        picture_from_message(png_of_zeros(7000, 7000), "/image")
    message = png_of_zeros(100, 100)
    message.data[16:24] = array("B", struct.pack(">II", 5000, 5000))
    with pytest.raises(MessageError, match=r"truncated PNG: .*for 5000 x 5000 pixels"):
        picture_from_message(message, "/image")


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize("kind", [b"IDAT", b"tEXt", b"zzzz", b"IEND", b"IHDR"])
@pytest.mark.parametrize("length", [2**31 - 1, 2**32 - 1, 1_200_000_000, 5000])
def test_a_png_whose_chunk_is_longer_than_the_data_is_refused_from_its_header(kind: bytes, length: int) -> None:
    message = compressed(".png", noise(32, 16))
    data = bytes(message.data)
    message.data = array("B", data[:33] + struct.pack(">I", length) + kind + data[33:])
    with pytest.raises(MessageError, match=r"truncated PNG: .*needed complete chunks from IHDR to IEND"):
        picture_from_message(message, "/image")


@pytest.mark.usefixtures("no_decoding")
def test_a_progressive_jpeg_of_countless_scans_is_refused_from_its_header() -> None:
    jpeg = cv2.imencode(".jpg", noise(), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    scan = jpeg[jpeg.rfind(b"\xff\xda") : -2]
    message = CompressedImage(format="jpeg", data=array("B", jpeg[:-2] + 1000 * scan + jpeg[-2:]))
    with pytest.raises(MessageError, match=r"too many scans: found a JPEG of 10\d\d scans, needed at most 32"):
        picture_from_message(message, "/image")


def several_scans(width: int, height: int, components: int = 3, scans: int = 2) -> CompressedImage:
    """Return the headers and empty scans of a progressive JPEG, with data enough for its size."""
    frame = b"".join(bytes((number, 0x11, 0)) for number in range(1, components + 1))
    start = struct.pack(">HBHHB", 8 + len(frame), 8, height, width, components) + frame
    scan = b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\x01\x00\x00\x00\x00" + bytes(width * height // 512 // scans + 64)
    return CompressedImage(data=array("B", b"\xff\xd8\xff\xc2" + start + scan * scans + b"\xff\xd9"))


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize(
    ("message", "named"),
    [
        (several_scans(7680, 4320), "too large to decode: found a JPEG of 7680 x 4320 pixels, needed at most 27962026"),
        (several_scans(5000, 5000, components=4), "too large to decode.*needed at most 22878021 pixels"),
        (several_scans(1920, 1080, scans=33), "too many scans: found a JPEG of 33 scans, needed at most 32"),
        (several_scans(5000, 5000, scans=6), "too many scans: found a JPEG of 6 scans, needed at most 5"),
        (CompressedImage(data=array("B", bytes((40 << 20) + 1))), "too large to decode: found 41943041 bytes"),
    ],
)
def test_a_jpeg_of_several_scans_is_refused_from_its_header_where_its_coefficients_take_too_much(
    message: CompressedImage, named: str
) -> None:
    with pytest.raises(MessageError, match=named):
        picture_from_message(message, "/image")


@pytest.mark.usefixtures("no_decoding")
def test_a_png_of_16_bits_is_refused_from_its_header_where_its_rows_take_too_much() -> None:
    message = png_of_zeros(5120, 5120)
    message.data[24] = 16
    message.data.extend(bytes(80_000))  # after IEND; enough for a PNG of twice the rows
    with pytest.raises(MessageError, match="too large to decode: found a PNG of 5120 x 5120 pixels in 157286400 bytes"):
        picture_from_message(message, "/image")


@pytest.mark.usefixtures("no_decoding")
def test_a_large_jpeg_without_its_end_marker_is_not_decoded_three_times() -> None:
    message = claiming(4096, 2400, 40_000)
    del message.data[-2:]
    with pytest.raises(MessageError, match="truncated JPEG: found a JPEG of 4096 x 2400 pixels without an end marker"):
        picture_from_message(message, "/image")


@pytest.mark.usefixtures("no_decoding")
def test_an_animated_png_is_refused() -> None:
    data = bytes(compressed(".png", noise(32, 16)).data)
    control = b"acTL" + struct.pack(">II", 1000, 0)
    chunk = struct.pack(">I", 8) + control + struct.pack(">I", zlib.crc32(control))
    message = CompressedImage(format="png", data=array("B", data[:33] + chunk + data[33:]))
    with pytest.raises(MessageError, match="wrong compressed format: found an animated PNG"):
        picture_from_message(message, "/image")


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize("described", [(640, 360), (63, 32), (8, 4), (640, 320), (64, 0), (0, 64)])
def test_an_image_that_its_calibration_does_not_describe_is_refused_from_its_header(described: tuple[int, int]) -> None:
    raw = Image(width=64, height=32, step=192, encoding="bgr8", data=array("B", bytes(6144)))
    fits = described in ((63, 32), (8, 4), (64, 0))
    for message in (compressed(".jpg", plain_picture()), compressed(".png", plain_picture()), raw):
        if fits and message is not raw:
            with pytest.raises(AssertionError, match="decoded"):
                picture_from_message(message, "/image", described=described)
        elif not fits:
            with pytest.raises(MessageError, match=r"wrong image size: found .* the shape of the image, 64 x 32"):
                picture_from_message(message, "/image", described=described)


@pytest.mark.parametrize(
    "sizes",
    [
        {"height": 2**31, "step": 0},
        {"height": 2**32 - 1},
        {"width": 2**32 - 1, "step": 24},
        {"width": 2**32 - 1, "height": 2**32 - 1, "step": 2**32 - 1},
        {"width": MAX_SIDE + 1, "height": 1},
        {"width": 9, "step": 24},
        {"step": 2**32 - 1},
        {"step": 23},
        {"width": 0},
        {"height": 0},
        {"height": 5},
    ],
    ids=str,
)
def test_sizes_of_a_raw_image_that_contradict_its_data_are_refused(sizes: dict[str, int]) -> None:
    message = Image(width=8, height=4, step=24, encoding="bgr8", data=array("B", bytes(95)))
    for name, value in sizes.items():
        setattr(message, name, value)
    with pytest.raises(MessageError, match=r"incomplete image|wrong image size"):
        picture_from_message(message, "/image")


# --- Usable, but odd ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["bgr8", "mono8", "bgr16", "yuv422", "bayer_rggb8"])
@pytest.mark.parametrize("step", [0, 1, 7, 2**32 - 1])
def test_a_wrong_step_of_an_image_without_padding_does_not_matter(encoding: str, step: int) -> None:
    channels = {"bgr8": 3, "bgr16": 3, "yuv422": 2}.get(encoding, 1)
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, channels), np.uint16 if "16" in encoding else np.uint8)
    message = CvBridge().cv2_to_imgmsg(pixels, encoding=encoding)
    expected = picture_from_message(message, "/image").pixels
    message.step = step
    doubts: list[MessageError] = []
    np.testing.assert_array_equal(picture_from_message(message, "/image", doubts=doubts).pixels, expected)
    assert [doubt.problem for doubt in doubts] == ["wrong step"]


def test_the_last_row_may_lack_its_padding() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    data = np.pad(pixels.reshape(5, 21), ((0, 0), (0, 11))).tobytes()[:-11]
    message = Image(height=5, width=7, encoding="bgr8", step=32, data=array("B", data))
    np.testing.assert_array_equal(picture_from_message(message, "/image").pixels, pixels)


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "bgra8", "mono8", "mono16", "bgr16", "yuv422", "bayer_grbg8"])
@pytest.mark.parametrize("padding", [1, 2, 5, 64])
def test_cv_bridge_never_sees_padding(encoding: str, padding: int) -> None:
    channels = {"bgr8": 3, "rgb8": 3, "bgr16": 3, "bgra8": 4, "yuv422": 2}.get(encoding, 1)
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, channels), np.uint16 if "16" in encoding else np.uint8)
    message = CvBridge().cv2_to_imgmsg(pixels, encoding=encoding)
    expected = picture_from_message(message, "/image").pixels
    rows = np.pad(pixels.reshape(4, -1).view(np.uint8), ((0, 0), (0, padding)), constant_values=0xCD)
    message.step, message.data = rows.shape[1], array("B", rows.tobytes())
    np.testing.assert_array_equal(picture_from_message(message, "/image").pixels, expected)


@pytest.mark.parametrize(("encoding", "order"), [("nv12", (0, 1)), ("nv21", (1, 0))])
@pytest.mark.parametrize("padding", [0, 5])
def test_semi_planar_images_are_decoded(encoding: str, order: tuple[int, int], padding: int) -> None:
    pixels = cv2.resize(noise(), (64, 32), interpolation=cv2.INTER_LINEAR)
    planes = cv2.cvtColor(pixels, cv2.COLOR_BGR2YUV_I420)
    chroma = planes[32:].reshape(2, -1)
    data = np.concatenate([planes[:32].reshape(-1), chroma[list(order)].T.reshape(-1)]).reshape(48, 64)
    data = np.pad(data, ((0, 0), (0, padding)))
    message = Image(width=64, height=32, step=64 + padding, encoding=encoding, data=array("B", data.tobytes()))
    expected = cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420)
    found = picture_from_message(message, "/image")
    np.testing.assert_array_equal(found.pixels, expected)
    assert found.full_size == (64, 32)
    message.width = 63
    with pytest.raises(MessageError, match=r"incomplete image: .*even width and height for nv12|nv21"):
        picture_from_message(message, "/image")


@pytest.mark.parametrize("quality", [30, 95])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("ending", [b"", b"\xff", bytes(100), b"\xff" * 9])
def test_a_jpeg_without_its_end_marker_is_used_if_all_rows_are_there(quality: int, grey: bool, ending: bytes) -> None:
    pixels = noise()[..., 0] if grey else noise()
    jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    whole = picture_from_message(CompressedImage(format="jpeg", data=array("B", jpeg)), "/image")
    doubts: list[MessageError] = []
    message = CompressedImage(format="jpeg", data=array("B", jpeg[:-2] + ending))
    np.testing.assert_array_equal(picture_from_message(message, "/image", doubts=doubts).pixels, whole.pixels)
    assert [doubt.problem for doubt in doubts] == ["JPEG without an end"]
    for cut in (3, 10, len(jpeg) // 2):
        message.data = array("B", jpeg[: -2 - cut] + ending)
        with pytest.raises(MessageError, match="truncated JPEG"):
            picture_from_message(message, "/image")


def test_a_progressive_jpeg_without_its_end_marker_is_refused() -> None:
    jpeg = cv2.imencode(".jpg", noise(), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert picture_from_message(CompressedImage(format="jpeg", data=array("B", jpeg)), "/image").full_size == (96, 64)
    with pytest.raises(MessageError, match="truncated JPEG"):
        picture_from_message(CompressedImage(format="jpeg", data=array("B", jpeg[:-2])), "/image")


@pytest.mark.parametrize(
    ("kind", "grey"),
    [
        ("bayer_rggb8; jpeg compressed mono8", True),
        ("bayer_rggb8; jpeg compressed bgr8", False),
        ("bayer_rggb8; jpeg compressed ", False),
        ("bayer_rggb8", False),
        ("bayer_nonsense; jpeg compressed bgr8", False),
        ("mono8; jpeg compressed ", True),
    ],
)
def test_a_jpeg_of_a_bayer_camera_that_holds_no_mosaic_is_left_as_it_is(kind: str, grey: bool) -> None:
    message = compressed(".jpg", noise()[..., 0] if grey else noise(), kind)
    expected = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(picture_from_message(message, "/image").pixels, expected)
    assert picture_from_message(message, "/image", 12).pixels.shape == (8, 12, 3), "decoded at an eighth"


@pytest.mark.parametrize(
    "kind", ["bayer_rggb8", "bayer_rggb8; png compressed bayer_rggb8", "bayer_rggb16; png compressed "]
)
def test_a_mosaic_of_8_or_16_bits_is_demosaiced(kind: str) -> None:
    mosaic = np.zeros((32, 64), np.uint16 if "16" in kind else np.uint8)
    mosaic[0::2, 0::2] = 200 * (256 if "16" in kind else 1)
    pixels = picture_from_message(compressed(".png", mosaic, kind), "/image").pixels
    np.testing.assert_array_equal(pixels[10, 10], [0, 0, 200])


def test_an_unknown_mosaic_is_named() -> None:
    message = compressed(".png", np.zeros((32, 64), np.uint8), "bayer_nonsense; png compressed ")
    with pytest.raises(MessageError, match="wrong encoding: found 'bayer_nonsense'"):
        picture_from_message(message, "/image")


@pytest.mark.parametrize(
    ("kind", "data", "remedy"),
    [
        ("h264", b"\x00\x00\x00\x01gop", "republish ffmpeg raw"),
        ("", b"\x00\x00\x01\xb3gop", "republish ffmpeg raw"),
        ("hevc", b"packet", "republish ffmpeg raw"),
        ("16UC1; compressedDepth png", b"\0" * 12 + b"\x89PNG", "topic of a colour image"),
        ("webp", b"RIFF", "publish jpeg or png compression"),
        ("", b"", "publish jpeg or png compression"),
    ],
)
def test_other_compressions_are_named_with_a_remedy(kind: str, data: bytes, remedy: str) -> None:
    with pytest.raises(MessageError, match=r"wrong compressed format: .*needed a JPEG or a PNG") as caught:
        picture_from_message(CompressedImage(format=kind, data=array("B", data)), "/image")
    assert remedy in str(caught.value)


@pytest.mark.parametrize("bigendian", [0, 1])
@pytest.mark.parametrize(
    "encoding",
    [
        f"{layout}{bits}"
        for layout in ("mono", "bgr", "rgb", "bgra", "rgba", "bayer_rggb", "bayer_bggr", "bayer_gbrg", "bayer_grbg")
        for bits in (8, 16)
    ]
    + ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"],
)
def test_every_encoding_is_decoded_as_by_cv_bridge(encoding: str, bigendian: int) -> None:
    height, width = 256, 258
    depth = 2 if encoding.endswith("16") else 1
    channels = {"bgr": 3, "rgb": 3, "bgra": 4, "rgba": 4, "yuv422": 2, "uyvy": 2, "yuv422_yuy2": 2, "yuyv": 2}.get(
        encoding.removesuffix("8").removesuffix("16"), 1
    )
    values = np.random.default_rng(0).integers(0, 256, height * width * channels * depth, np.uint8)
    step = width * channels * depth
    message = Image(height=height, width=width, encoding=encoding, step=step, is_bigendian=bigendian)
    message.data = array("B", values.tobytes())
    expected = CvBridge().imgmsg_to_cv2(message, desired_encoding="bgr8")
    np.testing.assert_array_equal(picture_from_message(message, "/image").pixels, expected)
