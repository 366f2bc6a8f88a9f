# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Conversion of Image and CompressedImage messages to arrays.

A picture is refused from its header if it is too large, or of another shape or size than its camera. Nothing is decoded
or allocated for it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.decoding.compressed_header import MAX_DATA, CompressedHeader, check_cost, read_header
from aqr_perception.decoding.message_error import MessageError
from aqr_perception.decoding.raw_images import decode_mosaic, decode_raw
from aqr_perception.stage_clock import measured

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage, Image

MAX_PIXELS = 1 << 25
"""Largest number of pixels, 33.5 million: 8K video (7680 x 4320). Decoded, they take 96 MiB."""
MAX_SIDE = 32_766
"""Largest width and height in pixels; cv2.remap has 16 bits for a coordinate."""

_MAX_STRETCH = 0.02
_MAX_SCALE = 8.1
"""Largest ratio of sizes of a picture and its CameraInfo: 8, with some rows for rounding."""
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_END = b"\xff\xd9"
_FOREIGN_SCAN = b"\xb5\x6e\x93\x2d\xca" * 100
"""Data that a decoder takes for the rows after the end of a truncated JPEG's data; without it, it takes zeros."""


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        pixels: (H, W, 3) uint8, BGR.
        full_size: width and height of the image as sent; `pixels` may be smaller.
    """

    pixels: NDArray[np.uint8]
    full_size: tuple[int, int]


@measured("decode")
def picture_from_message(
    message: "Image | CompressedImage",
    topic: str,
    image_width: int = 0,
    described: tuple[int, int] = (0, 0),
    doubts: list[MessageError] | None = None,
    ahead: Picture | None = None,
) -> Picture:
    """Decode a raw or compressed image to BGR.

    Args:
        image_width: width in pixels that the model needs. A compressed image is decoded at the smallest of 1, 1/2,
            1/4 and 1/8 of its size that is at least as wide; with 0, at full size.
        described: width and height according to CameraInfo; 0 if unknown.
        doubts: receives what is odd about an image that is usable nevertheless.
        ahead: the image's picture, if another thread has decoded it without doubt.

    Raises:
        MessageError: the encoding or format is unknown, the image is too large or not of the size that CameraInfo
            describes, or it has too few bytes.
    """
    if ahead is not None:
        return ahead
    doubts = [] if doubts is None else doubts
    if _is_compressed(message):
        return _decode_compressed(message, topic, image_width, described, doubts)
    size = (message.width, message.height)
    _check_size(size, described, topic)
    return Picture(decode_raw(message, topic, doubts), size)


def _is_compressed(message: "Image | CompressedImage") -> "TypeGuard[CompressedImage]":
    return not hasattr(message, "encoding")


def check_shape(sent: tuple[int, int], described: tuple[int, int], topic: str) -> None:
    """Check that an image can be a scaled copy of the one that CameraInfo describes.

    Args:
        sent, described: width and height in pixels; a described 0 is unknown.

    Raises:
        MessageError: the ratio of the sides differs by more than 2 %, or the size by a factor of more than 8.
    """
    known = tuple(side or size for side, size in zip(described, sent, strict=True))
    scales = (sent[0] / known[0], sent[1] / known[1])
    if abs(scales[0] / scales[1] - 1) <= _MAX_STRETCH and 1 / _MAX_SCALE <= scales[0] <= _MAX_SCALE:
        return
    found, needed = f"{known[0]} x {known[1]} pixels", f"the shape of the image, {sent[0]} x {sent[1]}"
    raise MessageError(topic, "wrong image size", found, needed, "check info topic, ROI and binning")


def _check_size(size: tuple[int, int], described: tuple[int, int], topic: str) -> None:
    if min(size) < 1 or max(size) > MAX_SIDE or size[0] * size[1] > MAX_PIXELS:
        needed = f"1 to {MAX_SIDE} pixels a side, at most {MAX_PIXELS} in all"
        raise MessageError(topic, "wrong image size", f"{size[0]} x {size[1]} pixels", needed, "check the driver")
    check_shape(size, described, topic)


def _decode_compressed(
    message: "CompressedImage", topic: str, image_width: int, described: tuple[int, int], doubts: list[MessageError]
) -> Picture:
    if len(message.data) > MAX_DATA:
        found, remedy = f"{len(message.data)} bytes", "compress the images more, or publish smaller ones"
        raise MessageError(topic, "too large to decode", found, f"at most {MAX_DATA}", remedy)
    content = bytes(message.data)
    header = read_header(content, topic, message.format)
    size = (header.width, header.height)
    _check_size(size, described, topic)
    check_cost(header, topic)
    if not header.ended:
        content = _stem(content) + _END
        _check_rows(content, header, topic)
        problem, remedy = "JPEG without an end", "check the driver; the data may be truncated at times"
        doubts.append(MessageError(topic, problem, "all rows, but no end marker", "FF D9 at the end", remedy))
    data, mosaic = np.frombuffer(content, np.uint8), _mosaic(message.format, header)
    if mosaic:
        return Picture(decode_mosaic(_decode(data, cv2.IMREAD_GRAYSCALE, header, topic), mosaic, topic), size)
    return Picture(_decode(data, _REDUCED[_reduction(header.width, image_width)], header, topic), size)


def _mosaic(format: str, header: CompressedHeader) -> str:
    """Return the Bayer encoding of a compressed mosaic; empty for an image of colours or grey levels.

    image_transport writes ``ENCODING; jpeg compressed CONTENT``. By default it makes a Bayer image grey before the
    compression: the content is mono8.
    """
    encoding, _, description = format.partition(";")
    encoding = encoding.strip()
    content = description.partition("compressed")[2].strip()
    if encoding.startswith("bayer_") and not header.colours and (not content or content.startswith("bayer_")):
        return encoding
    return ""


def _stem(content: bytes) -> bytes:
    """Return a JPEG that has no end marker without the padding of its buffer, which a decoder would take for rows."""
    stem = content.rstrip(b"\0")
    if stem.endswith(b"\xff") and len(stem) < len(content):
        return stem + b"\0"  # FF 00 is a byte of the scan
    return stem.rstrip(b"\xff")


def _check_rows(content: bytes, header: CompressedHeader, topic: str) -> None:
    """Check that a JPEG that came without an end marker has all its rows.

    A decoder takes what follows the data for missing rows, and ignores it after the last row. So different endings
    give the same image only if no row is missing.
    """
    if header.one_scan:
        endings = (content, content[: -len(_END)] + _FOREIGN_SCAN + _END)
        one, other = (_decode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR, header, topic) for data in endings)
        if np.array_equal(one, other):
            return
    found, remedy = f"{len(content)} bytes without an end", "check the driver and the network's message size"
    raise MessageError(topic, "truncated JPEG", found, "the end-of-image marker FF D9", remedy)


def _decode(data: NDArray[np.uint8], flag: int, header: CompressedHeader, topic: str) -> NDArray[np.uint8]:
    # The EXIF orientation is ignored: CameraInfo describes the pixels as they are stored.
    try:
        pixels = cv2.imdecode(data, flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        pixels = None
    if pixels is None:
        found = f"{len(data)} bytes that OpenCV cannot decode"
        raise MessageError(topic, f"corrupt {header.format}", found, f"a whole {header.format}", "check the driver")
    return np.asarray(pixels, np.uint8)


def _reduction(full_width: int, image_width: int) -> int:
    return next((factor for factor in (8, 4, 2) if image_width and full_width // factor >= image_width), 1)
