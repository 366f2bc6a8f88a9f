# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Conversion of images between sensor_msgs messages and OpenCV's NumPy arrays."""

import sys
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from cv_bridge.conversion import CV_MAT_CNWrap, CV_MAT_DEPTHWrap, cvtColor2, getCvType

_NUMPY_DEPTHS = {
    "8U": "uint8",
    "8S": "int8",
    "16U": "uint16",
    "16S": "int16",
    "32S": "int32",
    "32F": "float32",
    "64F": "float64",
}


class CvBridgeError(TypeError):
    """An image that cannot be converted."""


class CvBridge:
    """Converter of images between messages and arrays: (H, W) with one channel, (H, W, channels) with more."""

    def __init__(self) -> None:
        self.cvtype_to_name = {
            getattr(cv2, f"CV_{depth}C{channels}"): f"{depth}C{channels}"
            for depth in _NUMPY_DEPTHS
            for channels in range(1, 5)
        }
        self.cvdepth_to_numpy_depth = {getattr(cv2, f"CV_{depth}"): name for depth, name in _NUMPY_DEPTHS.items()}
        # Both ways in one table, as in the original.
        self.numpy_type_to_cvtype = {name: depth for depth, name in _NUMPY_DEPTHS.items()} | _NUMPY_DEPTHS

    def dtype_with_channels_to_cvtype2(self, dtype: np.dtype, n_channels: int) -> str:
        """Return the generic encoding, such as `8UC3`. KeyError if OpenCV lacks the type."""
        return f"{self.numpy_type_to_cvtype[dtype.name]}C{n_channels}"

    def cvtype2_to_dtype_with_channels(self, cvtype: int) -> tuple[str, int]:
        """Return NumPy's name of an OpenCV type's depth, and the number of its channels."""
        return self.cvdepth_to_numpy_depth[CV_MAT_DEPTHWrap(cvtype)], CV_MAT_CNWrap(cvtype)

    def encoding_to_cvtype2(self, encoding: str) -> int:
        """Return the OpenCV type of an encoding. CvBridgeError if it is unknown."""
        try:
            return getCvType(encoding)
        except RuntimeError as error:
            raise CvBridgeError(error) from error

    def encoding_to_dtype_with_channels(self, encoding: str) -> tuple[str, int]:
        """Return NumPy's type name and the number of channels of an encoding. CvBridgeError if it is unknown."""
        return self.cvtype2_to_dtype_with_channels(self.encoding_to_cvtype2(encoding))

    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = "passthrough") -> NDArray[Any]:
        """Return the image in native byte order, in its own encoding or in `desired_encoding`.

        With `passthrough`, without padding and in native byte order, the array shares the message's data.

        Raises:
            CvBridgeError: an encoding is unknown, the conversion impossible, or the data shorter than its description.
        """
        dtype_name, channels = self.encoding_to_dtype_with_channels(img_msg.encoding)
        dtype = np.dtype(dtype_name).newbyteorder(">" if img_msg.is_bigendian else "<")
        height, width, step = img_msg.height, img_msg.width, img_msg.step
        pixel_bytes = channels * dtype.itemsize
        data = np.asarray(img_msg.data, dtype=np.uint8) if isinstance(img_msg.data, list) else img_msg.data
        if step < width * pixel_bytes or len(data) < height * step:
            raise CvBridgeError(
                f"{width} x {height} pixels [{img_msg.encoding}] need rows of {width * pixel_bytes} bytes or more: "
                f"the message has rows (step) of {step} bytes and {len(data)} bytes in all"
            )
        shape: tuple[int, ...] = (height, width)
        # The original drops the rest of a step that is not a whole number of pixels, which shifts the rows.
        strides: tuple[int, ...] = (step // pixel_bytes * pixel_bytes, pixel_bytes)
        if channels > 1:
            shape, strides = (*shape, channels), (*strides, dtype.itemsize)
        image = np.ndarray(shape, dtype=dtype, buffer=data, strides=strides)
        image = np.ascontiguousarray(image, dtype=dtype.newbyteorder("="))
        return image if desired_encoding == "passthrough" else self._convert(image, img_msg.encoding, desired_encoding)

    def cv2_to_imgmsg(self, cvim: NDArray[Any], encoding: str = "passthrough", header: Header | None = None) -> Image:
        """Return the image as a message; `encoding` names the content of the array, `passthrough` only its type (8UC3).

        Raises:
            TypeError: `cvim` is not an array.
            KeyError: OpenCV lacks the array's type.
            CvBridgeError: `encoding` is unknown, or has another type than the array.
        """
        if not isinstance(cvim, np.ndarray | np.generic):
            raise TypeError(f"cvim is a {type(cvim).__name__}, not a numpy array")
        message = Image()
        message.height, message.width = cvim.shape[:2]
        if header is not None:
            message.header = header
        cv_type = self.dtype_with_channels_to_cvtype2(cvim.dtype, 1 if cvim.ndim < 3 else cvim.shape[2])
        if encoding == "passthrough":
            message.encoding = cv_type
        else:
            message.encoding = encoding
            if self.cvtype_to_name[self.encoding_to_cvtype2(encoding)] != cv_type:
                raise CvBridgeError(f"encoding specified as {encoding}, but image has incompatible type {cv_type}")
        # NumPy writes native byte order as "=".
        message.is_bigendian = cvim.dtype.byteorder == ">" or (cvim.dtype.byteorder == "=" and sys.byteorder == "big")
        message.data.frombytes(cvim.tobytes())
        message.step = len(message.data) // message.height
        return message

    @staticmethod
    def _convert(image: NDArray[Any], encoding: str, desired_encoding: str) -> NDArray[Any]:
        try:
            return cvtColor2(image, encoding, desired_encoding)
        except RuntimeError as error:
            raise CvBridgeError(error) from error
