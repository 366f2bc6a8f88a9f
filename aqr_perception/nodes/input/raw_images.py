"""Decoding of raw Image messages to BGR."""

from typing import NamedTuple

import cv2
import numpy as np
from cv_bridge import CvBridge, CvBridgeError
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from aqr_perception.nodes.input.message_error import MessageError, printable

_BRIDGE = CvBridge()

_PIXEL_BYTES = {
    **dict.fromkeys(("mono8", "bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"), 1),
    **dict.fromkeys(("mono16", "bayer_rggb16", "bayer_bggr16", "bayer_gbrg16", "bayer_grbg16"), 2),
    **dict.fromkeys(("yuv422", "uyvy", "yuv422_yuy2", "yuyv"), 2),
    **dict.fromkeys(("bgr8", "rgb8"), 3),
    **dict.fromkeys(("bgra8", "rgba8"), 4),
    **dict.fromkeys(("bgr16", "rgb16"), 6),
    **dict.fromkeys(("bgra16", "rgba16"), 8),
}
"""Bytes of a pixel by encoding (sensor_msgs/image_encodings.hpp)."""
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


def decode_raw(message: Image, topic: str, doubts: list[MessageError]) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 BGR pixels; those of a bgr8 image share the memory of its data.

    Raises:
        MessageError: the encoding has no colours, or the data is too short for the header.
    """
    layout = _layout(message, topic, doubts)
    try:
        if message.encoding in _SEMI_PLANAR:
            pixels = cv2.cvtColor(_packed_rows(message, layout), _SEMI_PLANAR[message.encoding])
        elif message.encoding == "bgr8":
            pixels = _packed_rows(message, layout).reshape(message.height, message.width, 3)  # cv_bridge would copy
        else:
            pixels = _BRIDGE.imgmsg_to_cv2(_repacked(message, layout), desired_encoding="bgr8")
    except (CvBridgeError, cv2.error, TypeError, ValueError, KeyError, RuntimeError) as error:
        raise _wrong_encoding(message, topic, f"an encoding that converts to bgr8 ({printable(error)})") from error
    return np.ascontiguousarray(pixels, np.uint8)


def decode_mosaic(grey: NDArray[np.uint8], encoding: str, topic: str) -> NDArray[np.uint8]:
    """Return the BGR colours of a Bayer mosaic (H, W) of 8 bits; `encoding` may name 16 bits."""
    height, width = grey.shape
    name = encoding[:-2] + "8" if encoding.endswith("16") else encoding
    message = Image(height=height, width=width, step=width, encoding=name)
    message.data.frombytes(np.ascontiguousarray(grey).reshape(-1).data)
    return decode_raw(message, topic, [])


def _layout(message: Image, topic: str, doubts: list[MessageError]) -> _Layout:
    """Return the rows' place in the data, which is then long enough."""
    width, height, available = message.width, message.height, len(message.data)
    if width == 0 or height == 0:
        raise _incomplete(message, topic, "a width and a height")
    if message.encoding in _SEMI_PLANAR:
        if width % 2 or height % 2:
            raise _incomplete(message, topic, f"even width and height for {message.encoding}")
        rows, row_bytes = height + height // 2, width
    elif message.encoding in _PIXEL_BYTES:
        rows, row_bytes = height, width * _PIXEL_BYTES[message.encoding]
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


def _packed_rows(message: Image, layout: _Layout) -> NDArray[np.uint8]:
    """Return the (rows, row_bytes) bytes without the padding of the rows; a copy only if there is padding."""
    rows = np.ndarray((layout.rows, layout.row_bytes), np.uint8, buffer=message.data, strides=(layout.step, 1))
    return np.ascontiguousarray(rows)


def _repacked(message: Image, layout: _Layout) -> Image:
    """Return the image without padding: cv_bridge shifts each row if the padded step is not a multiple of a pixel."""
    if layout.step == layout.row_bytes == message.step:
        return message
    packed = Image(
        height=message.height,
        width=message.width,
        encoding=message.encoding,
        is_bigendian=message.is_bigendian,
        step=layout.row_bytes,
    )
    packed.data.frombytes(_packed_rows(message, layout).reshape(-1).data)
    return packed


def _incomplete(message: Image, topic: str, needed: str) -> MessageError:
    found = f"{message.width} x {message.height}, step {message.step}, {len(message.data)} bytes"
    return MessageError(topic, "incomplete image", found, needed, "check the driver")


def _wrong_encoding(message: Image, topic: str, needed: str) -> MessageError:
    remedy = "publish bgr8, rgb8, mono8, yuv422, nv12 or a Bayer encoding"
    return MessageError(topic, "wrong encoding", repr(message.encoding), needed, remedy)
