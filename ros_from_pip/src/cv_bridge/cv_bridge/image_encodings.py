# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Meaning of the encoding strings of sensor_msgs/Image (sensor_msgs/image_encodings.hpp)."""

import re
from typing import NamedTuple


class ColorEncoding(NamedTuple):
    """Order of the channels, their number, and the bits of each."""

    layout: str
    channels: int
    bits: int


_CHANNELS = {"mono": 1, "rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4}
_BAYER_PATTERNS = ("bayer_rggb", "bayer_bggr", "bayer_gbrg", "bayer_grbg")

COLOR_ENCODINGS = {
    f"{layout}{bits}": ColorEncoding(layout, channels, bits)
    for layout, channels in [*_CHANNELS.items(), *((pattern, 1) for pattern in _BAYER_PATTERNS)]
    for bits in (8, 16)
}
# 4:2:2 with two bytes per pixel; yuv422 and yuv422_yuy2 are the older names.
COLOR_ENCODINGS |= {name: ColorEncoding("uyvy", 2, 8) for name in ("uyvy", "yuv422")}
COLOR_ENCODINGS |= {name: ColorEncoding("yuyv", 2, 8) for name in ("yuyv", "yuv422_yuy2")}

_GENERIC = re.compile(r"(8|16|32|64)[USF]C([0-9]*)")


def num_channels(encoding: str) -> int:
    """Return the channels of `encoding`. RuntimeError if it is unknown."""
    if encoding in COLOR_ENCODINGS:
        return COLOR_ENCODINGS[encoding].channels
    return int(_generic(encoding)[2] or 1)


def bit_depth(encoding: str) -> int:
    """Return the bits of a channel of `encoding`. RuntimeError if it is unknown."""
    if encoding in COLOR_ENCODINGS:
        return COLOR_ENCODINGS[encoding].bits
    return int(_generic(encoding)[1])


def _generic(encoding: str) -> re.Match[str]:
    match = _GENERIC.fullmatch(encoding)
    if match is None:
        raise RuntimeError(f"Unknown encoding {encoding}")
    return match
