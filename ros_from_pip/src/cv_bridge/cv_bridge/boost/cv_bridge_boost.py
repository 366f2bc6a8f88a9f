"""The functions of the original's C++ extension: pixel types, colour conversion, conversion for display.

They raise RuntimeError, as exceptions of the extension arrive in Python.
"""

import re
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_bridge.image_encodings import COLOR_ENCODINGS, bit_depth, num_channels
from cv_bridge.label_colors import color_labels

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
    """Return OpenCV's code for each pair of channel layouts that it converts between."""
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


def cvtColor2(obj_in: Image | None, encoding_in: str, encoding_out: str) -> Image | None:
    """Return a copy of an image in another encoding; unchanged where `encoding_out` is empty or the same.

    Between colour encodings everything that OpenCV can do, with 8 bits scaled to 16 and back. Otherwise the number of
    channels must stay, values outside the new range saturate, and a generic encoding never becomes a colour one.
    No image (None) can only stay what it is.
    """
    if encoding_out in ("", encoding_in):
        return None if obj_in is None else _mat(obj_in).copy()
    if obj_in is None:
        raise RuntimeError(f"there is no image to convert from [{encoding_in}] to [{encoding_out}]")
    image = _mat(obj_in)
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
    """Return the image as OpenCV gives images back: without a last axis of length 1, and 64-bit integers as 32-bit."""
    if not isinstance(image, np.ndarray):
        raise TypeError(f"the image is a {type(image).__name__}, not a numpy array")
    if image.dtype.kind in "iu" and image.dtype.itemsize == 8:
        image = image.astype(np.int32)
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


def cvtColorForDisplay(
    source: Image,
    encoding_in: str,
    encoding_out: str,
    do_dynamic_scaling: bool = False,
    min_image_value: float = 0.0,
    max_image_value: float = 0.0,
    colormap: int = -1,
) -> Image:
    """Return an image to look at, in `encoding_out`: 8-bit colour or mono, or empty to choose bgr8.

    Labels (32SC1) get one of 146 colours each. Other images with one channel are scaled, where `min_image_value` and
    `max_image_value` differ or `do_dynamic_scaling` finds them in the image (infinities and NaN apart), and given
    OpenCV's `colormap` where it is not -1. All others are converted as by `cvtColor2`.
    """
    encoding = _display_encoding(encoding_in, encoding_out)
    image = _mat(source)
    if encoding == "bgr8" and encoding_in == "32SC1":
        return color_labels(image)
    if do_dynamic_scaling:
        finite = ((image != np.inf) & (image != -np.inf)).astype(np.uint8)
        min_image_value, max_image_value, _, _ = cv2.minMaxLoc(image, mask=finite)
        if min_image_value == max_image_value:
            return np.full((*image.shape[:2], 3), 128, dtype=np.uint8)
    if min_image_value != max_image_value:
        return _scaled_for_display(image, encoding_in, encoding, min_image_value, max_image_value, colormap)
    if encoding_in == "16UC1":
        encoding_in = "mono16"
    if encoding_in == encoding:
        return source
    try:
        return cvtColor2(image, encoding_in, encoding)
    except RuntimeError as error:
        raise RuntimeError(
            "cv_bridge.cvtColorForDisplay() while trying to convert image "
            f"from '{encoding_in}' to '{encoding}' an exception was thrown ({error})"
        ) from error


def _display_encoding(encoding_in: str, encoding_out: str) -> str:
    if encoding_out:
        color = COLOR_ENCODINGS.get(encoding_out)
        if color is None or color.bits != 8 or color.layout in _OPENCV_BAYER:
            raise RuntimeError(
                f"cv_bridge.cvtColorForDisplay() cannot display [{encoding_out}]: "
                "the output encoding must be color or mono with 8 bits"
            )
        return encoding_out
    try:
        num_channels(encoding_in)
        if bit_depth(encoding_in) not in (8, 16, 32):
            raise RuntimeError(f"Unsupported depth of the source encoding {encoding_in}")
    except RuntimeError as error:
        raise RuntimeError(
            f"cv_bridge.cvtColorForDisplay() output encoding is empty and cannot be guessed: {error}"
        ) from error
    return "bgr8"


def _scaled_for_display(
    image: Image, encoding_in: str, encoding_out: str, lowest: float, highest: float, colormap: int
) -> Image:
    if num_channels(encoding_in) != 1:
        raise RuntimeError(
            "cv_bridge.cvtColorForDisplay() scaling for images with more than one channel is unsupported"
        )
    # In the image's own type first, so that values below `lowest` become 0 where it is unsigned, as in the original.
    above = cv2.subtract(image, np.full_like(image, lowest), dtype=-1)
    gray = _saturate(above.astype(np.float32) * np.float32(255.0 / (highest - lowest)), cv2.CV_8U)
    if colormap == -1:
        return cvtColor2(gray, "mono8", encoding_out)
    colored = cv2.applyColorMap(gray, colormap)
    if encoding_in == "32FC1":
        colored[np.isnan(image)] = 0
    return cvtColor2(colored, "bgr8", encoding_out)
