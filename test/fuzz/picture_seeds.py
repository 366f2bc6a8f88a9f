# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Small encoded pictures of every format that OpenCV and cameras write, and repair of the sums of a PNG."""

import functools
import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

_PNG_START = 8


def _cv(extension: str, pixels: np.ndarray, *settings: int) -> bytes:
    return bytes(cv2.imencode(extension, pixels, settings)[1].tobytes())


def _pil(form: str, mode: str, picture: Image.Image, **settings: object) -> bytes:
    target = io.BytesIO()
    picture.convert(mode).save(target, form, **settings)
    return target.getvalue()


@functools.cache
def seeds() -> tuple[bytes, ...]:
    """Return pictures of 40 x 24 pixels; the first is a usual JPEG."""
    pixels = np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8)
    pixels[4:20, 4:30] = 90
    picture, sampling = Image.fromarray(pixels), cv2.IMWRITE_JPEG_SAMPLING_FACTOR
    deep = pixels.astype(np.uint16) * 257
    animation = cv2.Animation()
    animation.frames, animation.durations = [pixels, 255 - pixels], [100, 100]
    return (
        _cv(".jpg", pixels),
        _cv(".jpg", pixels, sampling, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
        _cv(".jpg", pixels, sampling, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
        _cv(".jpg", pixels[..., 0]),
        _cv(".jpg", pixels, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        _cv(".jpg", pixels[..., 0], cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        _cv(".jpg", pixels, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        _cv(".jpg", pixels, cv2.IMWRITE_JPEG_OPTIMIZE, 1),
        _pil("JPEG", "CMYK", picture),
        _pil("JPEG", "CMYK", picture, progressive=True),
        _pil("JPEG", "RGB", picture, exif=Image.Exif().tobytes(), comment=b"a" * 40),
        _cv(".png", pixels),
        _cv(".png", pixels[..., 0]),
        _cv(".png", deep),
        _cv(".png", cv2.cvtColor(pixels, cv2.COLOR_BGR2BGRA)),
        _cv(".png", cv2.cvtColor(deep, cv2.COLOR_BGR2BGRA)),
        _pil("PNG", "P", picture),
        _pil("PNG", "LA", picture),
        _pil("PNG", "1", picture),
        interlaced_png(40, 24),
        bytes(cv2.imencodeanimation(".png", animation)[1].tobytes()),
        _cv(".webp", pixels),
        _cv(".tiff", pixels),
        _cv(".bmp", pixels),
        _cv(".jp2", cv2.resize(pixels, (128, 128))),
        _cv(".ppm", pixels),
        _pil("GIF", "P", picture),
        b"\0\0\0\x01\x67\x42\0\x1e" + bytes(40),
    )


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def interlaced_png(width: int, height: int, channels: int = 3, bits: int = 8) -> bytes:
    """Return a black PNG in Adam7's order."""
    compressor, parts = zlib.compressobj(9), []
    for x, y, across, down in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
    ):  # fmt: skip
        columns, rows = -(-(width - x) // across), -(-(height - y) // down)
        if columns > 0 and rows > 0:
            row = bytes(1 + columns * channels * bits // 8)
            parts += [compressor.compress(row) for _ in range(rows)]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    data = b"".join((*parts, compressor.flush()))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def with_right_sums(data: bytes) -> bytes:
    """Return a PNG with the right sum in each of its chunks, as far as their lengths lead."""
    repaired, place = bytearray(data), _PNG_START
    while place + 12 <= len(repaired):
        end = place + 8 + int.from_bytes(repaired[place : place + 4], "big")
        if end + 4 > len(repaired):
            break
        repaired[end : end + 4] = struct.pack(">I", zlib.crc32(repaired[place + 4 : end]))
        place = end + 4
    return bytes(repaired)
