"""Conversion of Image, CompressedImage and PointCloud2 messages to arrays."""

from dataclasses import dataclass

import cv2
import numpy as np
from cv_bridge import CvBridge, CvBridgeError
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField
from sensor_msgs_py.point_cloud2 import dtype_from_fields

from aqr_perception.nodes.input.compressed_header import CompressedHeader, read_header
from aqr_perception.nodes.input.message_error import MessageError

INTENSITY_FIELDS = ("intensity", "i", "reflectivity")

_BRIDGE = CvBridge()
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        pixels: (H, W, 3) uint8, BGR.
        full_size: width and height of the image as sent; `pixels` may be smaller.
    """

    pixels: NDArray[np.uint8]
    full_size: tuple[int, int]


def picture_from_message(message: Image | CompressedImage, topic: str, image_width: int = 0) -> Picture:
    """Decode a raw or compressed image to BGR.

    Args:
        image_width: width in pixels that the model needs. A compressed image is decoded at the smallest of 1, 1/2,
            1/4 and 1/8 of its size that is at least as wide; with 0, at full size.

    Raises:
        MessageError: the encoding or format is unknown, or the image has too few bytes.
    """
    if isinstance(message, CompressedImage):
        return _decode_compressed(message, topic, image_width)
    return Picture(_decode_raw(message, topic), (message.width, message.height))


def points_from_message(message: PointCloud2, topic: str) -> NDArray[np.float32]:
    """Decode a point cloud of any field order, padding, byte order and numeric type.

    The intensity is the first of `INTENSITY_FIELDS` in the point cloud, and 0 if there is none. Points with a
    coordinate that is not finite are dropped; an intensity that is not finite becomes 0.

    Returns:
        (N, 4) float32: x, y, z in the sensor's frame (metres), intensity; all finite.

    Raises:
        MessageError: x, y or z is missing, a field is outside the point, or the point cloud has too few bytes.
    """
    offered = {field.name: field for field in message.fields}
    missing = [name for name in "xyz" if name not in offered]
    if missing:
        found = f"fields {', '.join(offered) or '(none)'}"
        problem = f"point cloud without {', '.join(missing)}"
        raise MessageError(topic, problem, found, "x, y, z", "publish Cartesian points")
    names = ["x", "y", "z", *[name for name in INTENSITY_FIELDS if name in offered][:1]]
    records = _records(message, [offered[name] for name in names], topic)
    points = np.zeros((len(records), 4), dtype=np.float32)
    with np.errstate(over="ignore"):  # float64 beyond float32's range becomes inf, which is dropped below
        for column, name in enumerate(names):
            points[:, column] = records[name]
    points[:, 3] = np.nan_to_num(points[:, 3], nan=0.0, posinf=0.0, neginf=0.0)
    return points[np.isfinite(points[:, :3]).all(axis=1)]


def _decode_raw(message: Image, topic: str) -> NDArray[np.uint8]:
    needed = message.step * message.height
    if message.width == 0 or message.height == 0 or len(message.data) < needed or needed == 0:
        found = f"{message.width} x {message.height}, step {message.step}, {len(message.data)} bytes"
        raise MessageError(topic, "incomplete image", found, f"at least {max(needed, 1)} bytes", "check the driver")
    try:
        pixels = _BRIDGE.imgmsg_to_cv2(message, desired_encoding="bgr8")
    except (CvBridgeError, cv2.error, TypeError, ValueError, KeyError) as error:
        needed_text = f"an encoding that converts to bgr8 ({error})"
        remedy = "publish bgr8, rgb8, mono8, yuv422 or a Bayer encoding"
        raise MessageError(topic, "wrong encoding", repr(message.encoding), needed_text, remedy) from error
    return np.ascontiguousarray(pixels)


def _decode_compressed(message: CompressedImage, topic: str, image_width: int) -> Picture:
    data = np.frombuffer(message.data, dtype=np.uint8)
    header = read_header(data.tobytes(), topic)
    mosaic = message.format.split(";")[0].strip()
    if mosaic.startswith("bayer_"):  # image_transport compresses the mosaic, and scaling would mix its colours
        grey = _decode(data, cv2.IMREAD_GRAYSCALE, header, topic)
        return Picture(_decode_raw(_BRIDGE.cv2_to_imgmsg(grey, encoding=mosaic), topic), (header.width, header.height))
    flag = _REDUCED[_reduction(header.width, image_width)]
    return Picture(_decode(data, flag, header, topic), (header.width, header.height))


def _decode(data: NDArray[np.uint8], flag: int, header: CompressedHeader, topic: str) -> NDArray[np.uint8]:
    # The EXIF orientation is ignored: CameraInfo describes the pixels as they are stored.
    pixels = cv2.imdecode(data, flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        found = f"{len(data)} bytes that OpenCV cannot decode"
        raise MessageError(topic, f"corrupt {header.format}", found, f"a whole {header.format}", "check the driver")
    return np.asarray(pixels, np.uint8)


def _reduction(full_width: int, image_width: int) -> int:
    return next((factor for factor in (8, 4, 2) if image_width and full_width // factor >= image_width), 1)


def _records(message: PointCloud2, fields: list[PointField], topic: str) -> NDArray[np.void]:
    """Return a structured view of the point cloud's bytes, (height * width,); rows may be padded."""
    rows, columns = message.height, message.width
    try:
        dtype = dtype_from_fields(fields, point_step=message.point_step)
    except (ValueError, KeyError, AssertionError) as error:
        found = ", ".join(f"{field.name} (datatype {field.datatype}, offset {field.offset})" for field in fields)
        needed = f"numeric fields inside the point_step of {message.point_step} bytes"
        raise MessageError(topic, "broken point layout", found, needed, "check the driver") from error
    if message.is_bigendian:
        dtype = dtype.newbyteorder(">")
    if rows == 0 or columns == 0:
        return np.empty(0, dtype)
    row_step = message.row_step if rows > 1 else max(message.row_step, columns * message.point_step)
    needed_bytes = (rows - 1) * row_step + columns * message.point_step
    if row_step < columns * message.point_step or len(message.data) < needed_bytes:
        found = f"{len(message.data)} bytes, row_step {message.row_step}"
        needed = f"{rows} rows of {columns} points of {message.point_step} bytes"
        raise MessageError(topic, "incomplete point cloud", found, needed, "check the driver")
    strides = (row_step, message.point_step)
    records: NDArray[np.void] = np.ndarray((rows, columns), dtype, buffer=message.data, strides=strides)
    return records.reshape(-1)
