# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Decoding of raw Image messages to BGR, with the results of cv_bridge, whose Python part needs ROS."""

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.decoding.message_error import MessageError, printable

if TYPE_CHECKING:
    from sensor_msgs.msg import Image


class _Encoding(NamedTuple):
    """Bytes of a channel, channels of a pixel, and OpenCV's code for the conversion to BGR; None if it is BGR."""

    depth: int
    channels: int
    to_bgr: int | None

    @property
    def pixel_bytes(self) -> int:
        return self.depth * self.channels


# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first row's first two.
_LAYOUTS = {
    "mono": (1, cv2.COLOR_GRAY2BGR),
    "bayer_rggb": (1, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr": (1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg": (1, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg": (1, cv2.COLOR_BayerGB2BGR),
    "bgr": (3, None),
    "rgb": (3, cv2.COLOR_RGB2BGR),
    "bgra": (4, cv2.COLOR_BGRA2BGR),
    "rgba": (4, cv2.COLOR_RGBA2BGR),
}
_ENCODINGS = {
    **{f"{name}8": _Encoding(1, *layout) for name, layout in _LAYOUTS.items()},
    **{f"{name}16": _Encoding(2, *layout) for name, layout in _LAYOUTS.items()},
    **dict.fromkeys(("yuv422", "uyvy"), _Encoding(1, 2, cv2.COLOR_YUV2BGR_UYVY)),
    **dict.fromkeys(("yuv422_yuy2", "yuyv"), _Encoding(1, 2, cv2.COLOR_YUV2BGR_YUY2)),
}
"""Encodings by name (sensor_msgs/image_encodings.hpp)."""
_SEMI_PLANAR = {"nv12": cv2.COLOR_YUV2BGR_NV12, "nv21": cv2.COLOR_YUV2BGR_NV21}
"""4:2:0 with a plane of luma, and one of both chromas at half the rows: `height` counts the rows of luma."""


class _Layout(NamedTuple):
    """Rows of an image's data, their bytes, and the bytes from row to row."""

    rows: int
    row_bytes: int
    step: int

    @property
    def needed(self) -> int:
        return (self.rows - 1) * self.step + self.row_bytes  # the last row may lack its padding


def decode_raw(message: "Image", topic: str, doubts: list[MessageError]) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 BGR pixels.

    Raises:
        MessageError: the encoding has no colours, or the data is too short for the header.
    """
    layout = _layout(message, topic, doubts)
    try:
        if message.encoding in _SEMI_PLANAR:
            pixels = cv2.cvtColor(_packed_rows(message, layout), _SEMI_PLANAR[message.encoding])
        else:
            pixels = _to_bgr(_pixels(message, layout), _ENCODINGS[message.encoding])
    except cv2.error as error:
        raise _wrong_encoding(message, topic, f"an encoding that converts to bgr8 ({printable(error)})") from error
    return np.ascontiguousarray(pixels, np.uint8)


def decode_mosaic(grey: NDArray[np.uint8], encoding: str, topic: str) -> NDArray[np.uint8]:
    """Return the BGR colours of a Bayer mosaic (H, W) of 8 bits; `encoding` may name 16 bits."""
    name = encoding[:-2] + "8" if encoding.endswith("16") else encoding
    if name not in _ENCODINGS:
        needed = ", ".join(name for name in _ENCODINGS if name.startswith("bayer_"))
        raise MessageError(topic, "wrong encoding", repr(encoding), f"one of {needed}", "check the driver")
    return _to_bgr(grey, _ENCODINGS[name])


def _layout(message: "Image", topic: str, doubts: list[MessageError]) -> _Layout:
    """Return the rows' place in the data, which is then long enough."""
    width, height, available = message.width, message.height, len(message.data)
    if width == 0 or height == 0:
        raise _incomplete(message, topic, "a width and a height")
    if message.encoding in _SEMI_PLANAR:
        if width % 2 or height % 2:
            raise _incomplete(message, topic, f"even width and height for {message.encoding}")
        rows, row_bytes = height + height // 2, width
    elif message.encoding in _ENCODINGS:
        rows, row_bytes = height, width * _ENCODINGS[message.encoding].pixel_bytes
    else:
        raise _wrong_encoding(message, topic, "colours or grey levels of 8 or 16 bits")
    layout = _Layout(rows, row_bytes, message.step)
    if message.step >= row_bytes and available >= layout.needed:
        return layout
    if available == rows * row_bytes:
        remedy = "set step to the bytes of a row in the driver"
        doubts.append(MessageError(topic, "wrong step", message.step, f"{row_bytes}, which is used", remedy))
        return layout._replace(step=row_bytes)
    raise _incomplete(message, topic, f"at least {rows * max(row_bytes, message.step)} bytes")


def _packed_rows(message: "Image", layout: _Layout) -> NDArray[np.uint8]:
    """Return the (rows, row_bytes) bytes without the padding of the rows; a copy only if there is padding."""
    rows = np.ndarray((layout.rows, layout.row_bytes), np.uint8, buffer=message.data, strides=(layout.step, 1))
    return np.ascontiguousarray(rows)


def _pixels(message: "Image", layout: _Layout) -> NDArray[Any]:
    """Return (H, W) or (H, W, channels) in the machine's byte order."""
    encoding = _ENCODINGS[message.encoding]
    rows = _packed_rows(message, layout)
    if encoding.depth == 2:
        swapped = bool(message.is_bigendian) != (sys.byteorder == "big")
        values: NDArray[Any] = rows.view(np.uint16)
        rows = values.byteswap() if swapped else values
    shape = (message.height, message.width, encoding.channels)
    return rows.reshape(shape if encoding.channels > 1 else shape[:2])


def _to_bgr(pixels: NDArray[Any], encoding: _Encoding) -> NDArray[np.uint8]:
    if encoding.to_bgr is not None:
        pixels = cv2.cvtColor(pixels, encoding.to_bgr)
    # 16 bits become 8 after the colours, rounded, as in cv_bridge.
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=255 / 65535) if pixels.dtype == np.uint16 else pixels, np.uint8)


def _incomplete(message: "Image", topic: str, needed: str) -> MessageError:
    found = f"{message.width} x {message.height}, step {message.step}, {len(message.data)} bytes"
    return MessageError(topic, "incomplete image", found, needed, "check the driver")


def _wrong_encoding(message: "Image", topic: str, needed: str) -> MessageError:
    remedy = "publish bgr8, rgb8, mono8, yuv422, nv12 or a Bayer encoding"
    return MessageError(topic, "wrong encoding", repr(message.encoding), needed, remedy)
