# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pixel types and colour conversion, with the names and the RuntimeErrors of the original's C++ extension."""

import re
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_bridge.image_encodings import COLOR_ENCODINGS, bit_depth, num_channels

Image = NDArray[Any]

_DEPTHS = {
    "8U": cv2.CV_8U,
    "8S": cv2.CV_8S,
    "16U": cv2.CV_16U,
    "16S": cv2.CV_16S,
    "32S": cv2.CV_32S,
    "32F": cv2.CV_32F,
    "64F": cv2.CV_64F,
}
_GENERIC_TYPE = re.compile(rf"({'|'.join(_DEPTHS)})(?:C([0-9]+))?")

# A type is depth + ((channels - 1) << shift); the shift is 3 in OpenCV 4 and 5 in OpenCV 5.
_CHANNEL_SHIFT = cv2.CV_8UC2.bit_length() - 1
_DEPTH_MASK = (1 << _CHANNEL_SHIFT) - 1
_TYPE_MASK = 0xFFF

_COLORS = ("rgb", "bgr", "rgba", "bgra")
# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first row's first two.
_OPENCV_BAYER = {"bayer_rggb": "BG", "bayer_bggr": "RG", "bayer_gbrg": "GR", "bayer_grbg": "GB"}


def _conversion_codes() -> dict[tuple[str, str], int]:
    """Return OpenCV's conversion code by pair of channel layouts."""
    names = {("mono", color): f"GRAY2{color.upper()}" for color in _COLORS}
    for source in _COLORS:
        names[source, "mono"] = f"{source.upper()}2GRAY"
        names |= {(source, color): f"{source.upper()}2{color.upper()}" for color in _COLORS if color != source}
    for source, opencv_name in (("uyvy", "UYVY"), ("yuyv", "YUY2")):
        names[source, "mono"] = f"YUV2GRAY_{opencv_name}"
        names |= {(source, color): f"YUV2{color.upper()}_{opencv_name}" for color in _COLORS}
    for source, pattern in _OPENCV_BAYER.items():
        names[source, "mono"] = f"Bayer{pattern}2GRAY"
        names |= {(source, color): f"Bayer{pattern}2{color.upper()}" for color in ("rgb", "bgr")}
    return {layouts: getattr(cv2, f"COLOR_{name}") for layouts, name in names.items()}


_CONVERSION_CODES = _conversion_codes()


def getCvType(encoding: str) -> int:
    """Return OpenCV's type (CV_8UC3...) of the pixels of an encoding: a colour one, or one like `8UC3` or `8U`."""
    if encoding in COLOR_ENCODINGS:
        color = COLOR_ENCODINGS[encoding]
        return cv2.CV_MAKETYPE(cv2.CV_8U if color.bits == 8 else cv2.CV_16U, color.channels)
    match = _GENERIC_TYPE.fullmatch(encoding)
    if match is None:
        raise RuntimeError(f"Unrecognized image encoding [{encoding}]")
    return cv2.CV_MAKETYPE(_DEPTHS[match[1]], int(match[2] or 1))


def CV_MAT_CNWrap(i: int) -> int:
    """Return the number of channels of an OpenCV type."""
    return ((i & _TYPE_MASK) >> _CHANNEL_SHIFT) + 1


def CV_MAT_DEPTHWrap(i: int) -> int:
    """Return the depth (CV_8U...) of an OpenCV type."""
    return i & _DEPTH_MASK


def cvtColor2(obj_in: Image, encoding_in: str, encoding_out: str) -> Image:
    """Return a copy of an image in another encoding.

    Between colour encodings, all conversions of OpenCV work, and 8 bits are scaled to 16 and back. Otherwise the number
    of channels must not change, values outside the new range saturate, and a generic encoding never becomes a colour
    encoding.
    """
    image = _mat(obj_in)
    if encoding_out == encoding_in:
        return image.copy()
    source, target = COLOR_ENCODINGS.get(encoding_in), COLOR_ENCODINGS.get(encoding_out)
    if source is None and target is not None:
        raise RuntimeError(
            f"[{encoding_in}] is not a color format. but [{encoding_out}] is. The conversion does not make sense"
        )
    if source is None or target is None:
        if num_channels(encoding_in) != num_channels(encoding_out):
            raise RuntimeError(f"[{encoding_in}] and [{encoding_out}] do not have the same number of channels")
        return _to_depth(image, encoding_in, encoding_out)
    if source.layout != target.layout:
        if (source.layout, target.layout) not in _CONVERSION_CODES:
            raise RuntimeError(f"Unsupported conversion from [{encoding_in}] to [{encoding_out}]")
        try:
            image = _mat(cv2.cvtColor(image, _CONVERSION_CODES[source.layout, target.layout]))
        except cv2.error as error:
            raise RuntimeError(str(error)) from error
        return image if source.bits == target.bits else _to_depth(image, encoding_in, encoding_out)
    if source.layout in _OPENCV_BAYER:
        raise RuntimeError(f"Unsupported conversion from [{encoding_in}] to [{encoding_out}]")
    return _to_depth(image, encoding_in, encoding_out)


def _mat(image: Image) -> Image:
    """Return the image as OpenCV returns images: without a last axis of length 1."""
    return image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image


def _to_depth(image: Image, encoding_in: str, encoding_out: str) -> Image:
    """Return the image with the depth of `encoding_out`; from 8 bits to 16 and back, the whole range is kept."""
    bits_in, bits_out = bit_depth(encoding_in), bit_depth(encoding_out)
    depth = CV_MAT_DEPTHWrap(getCvType(encoding_out))
    if (bits_in, bits_out) == (8, 16):
        image = image.astype(np.float32) * np.float32(65535 / 255)
    elif (bits_in, bits_out) == (16, 8):
        image = image.astype(np.float32) * np.float32(255 / 65535)
    return _saturate(image, depth)


def _saturate(image: Image, depth: int) -> Image:
    """Return the image in another depth, rounded and saturated as by cv::Mat::convertTo, which Python lacks."""
    return _mat(cv2.add(image, np.zeros_like(image), dtype=depth))
