# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Size and completeness of a JPEG or PNG, without decoding it."""

from dataclasses import dataclass

from aqr_perception.decoding.message_error import MessageError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEFLATE_RATIO = 1032
"""Largest ratio of data to compressed data (RFC 1951: 258 bytes in two bits)."""
_MAX_DECODING_BYTES = 240 << 20
"""Most memory that decoding of several scans may take; a PNG or baseline JPEG stays below, with six bytes a pixel."""
MAX_DATA = 40 << 20
"""Most bytes of a compressed image: a JPEG of 8K video in the best quality has 25 million."""
_MAX_PNG_ROWS = 128 << 20
"""Most bytes of a PNG's rows: more take a second to inflate."""
_MAX_PASSES = 1 << 27
"""Largest product of a JPEG's scans and pixels: more take a second."""
_MAX_PIXELS_WITHOUT_END = 4096 * 2304
"""Most pixels of a JPEG without an end marker: it is decoded three times."""
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL_FRAMES = frozenset({0xC0, 0xC1})
_HUFFMAN_FRAMES = _SEQUENTIAL_FRAMES | {0xC2}
_START_OF_SCAN = 0xDA
_MOST_SCANS = 32
"""Progressive JPEGs of libjpeg have ten scans."""
_MOST_CHUNKS = 1 << 16
_VIDEO_STARTS = (b"\x00\x00\x00\x01", b"\x00\x00\x01")
_VIDEO_FORMATS = ("h264", "h265", "hevc", "av1", "vp9", "ffmpeg", "theora", "avc")


@dataclass(frozen=True)
class CompressedHeader:
    """Description of a compressed image.

    Attributes:
        format: ``JPEG`` or ``PNG``.
        width, height: in pixels.
        colours: whether it has colours, not only grey levels.
        ended: whether the data has an end marker. Without one, the last rows may be missing.
        one_scan: whether each row comes once. Otherwise the data has the image several times, each time finer, or each
            colour component on its own.
        scans, components: of a JPEG.
        row_bytes: bytes of a row of a PNG.
    """

    format: str
    width: int
    height: int
    colours: bool = True
    ended: bool = True
    one_scan: bool = True
    scans: int = 1
    components: int = 3
    row_bytes: int = 0


def read_header(data: bytes, topic: str, format: str = "") -> CompressedHeader:
    """Return the format and size of a compressed image; check that there is enough data for the size.

    OpenCV decodes a truncated JPEG without an error and fills the rest with grey, so this function looks for the end
    marker (ITU-T T.81, annex B; PNG: ISO/IEC 15948, clause 5).

    Args:
        format: the message's `format`, only for the error's text.

    Raises:
        MessageError: the data is truncated, or not a JPEG or PNG.
    """
    if data.startswith(b"\xff\xd8"):
        return _read_jpeg(data, topic)
    if data.startswith(_PNG_SIGNATURE):
        return _read_png(data, topic)
    found = f"{len(data)} bytes that start with {data[:4].hex(' ') or 'nothing'}, format {format!r}"
    needed, remedy = "a JPEG or a PNG", "publish jpeg or png compression"
    if data.startswith(_VIDEO_STARTS) or any(name in format[:100].lower() for name in _VIDEO_FORMATS):
        needed += ", not packets of a video"
        remedy = (
            "decode the video to raw images (ros2 run image_transport republish ffmpeg raw), and set the camera's "
            "`compressed` to false"
        )
    elif "compresseddepth" in format[:100].lower():
        remedy = "give the topic of a colour image; this one has depths"
    raise MessageError(topic, "wrong compressed format", found, needed, remedy)


def check_cost(header: CompressedHeader, topic: str) -> None:
    """Check that decoding an image takes less than 256 MB, and about a second at most.

    Raises:
        MessageError: it takes more.
    """
    pixels = header.width * header.height
    found = f"a {header.format} of {header.width} x {header.height} pixels"
    if header.height * header.row_bytes > _MAX_PNG_ROWS:
        rows = f"{found} in {header.height * header.row_bytes} bytes"
        raise MessageError(topic, "too large to decode", rows, f"at most {_MAX_PNG_ROWS}", "send 8 bits a colour")
    # Each scan takes a pass over all pixels, also if it has a few bytes.
    if not header.one_scan and header.scans > (most := min(_MOST_SCANS, _MAX_PASSES // pixels)):
        scans, needed = f"a JPEG of {header.scans} scans", f"at most {most} for {header.width} x {header.height} pixels"
        raise MessageError(topic, "too many scans", scans, needed, "send baseline JPEGs")
    # The decoder keeps all coefficients until the last scan: at most two bytes for each pixel and component.
    pixel_bytes = 3 + 2 * header.components
    if not header.one_scan and pixels * pixel_bytes > _MAX_DECODING_BYTES:
        needed = f"at most {_MAX_DECODING_BYTES // pixel_bytes} pixels in several scans"
        raise MessageError(topic, "too large to decode", found, needed, "send baseline JPEGs")
    if not header.ended and pixels > _MAX_PIXELS_WITHOUT_END:
        needed = f"an end marker in an image of more than {_MAX_PIXELS_WITHOUT_END} pixels"
        raise MessageError(topic, "truncated JPEG", f"{found} without an end marker", needed, "check the driver")


def _read_jpeg(data: bytes, topic: str) -> CompressedHeader:
    position, size, frame, components = 2, None, 0, 0
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte before a marker
            position += 1
            continue
        if marker in _START_OF_FRAME:
            height, width = (int.from_bytes(data[position + at : position + at + 2], "big") for at in (5, 7))
            size, frame, components = (width, height), marker, int.from_bytes(data[position + 9 : position + 10], "big")
        if marker == _START_OF_SCAN:
            break
        position += 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))
    if size is None or position + 9 > len(data) or data[position] != 0xFF:
        raise _truncated("JPEG", data, "the end-of-image marker FF D9", topic)
    # A block of 8 x 8 pixels has at least one bit.
    blocks = -(-size[0] // 8) * -(-size[1] // 8)
    if frame in _HUFFMAN_FRAMES and blocks > 8 * (len(data) - position):
        raise _truncated("JPEG", data, f"{blocks // 8} bytes for {size[0]} x {size[1]} pixels", topic)
    # Inside a scan, 0x00 or a restart marker follows 0xFF, so this pair can only be the end of the image.
    ended = data.rfind(b"\xff\xd9", position) >= 0
    one_scan = frame in _SEQUENTIAL_FRAMES and data[position + 4] == components
    scans = 1 if one_scan else data.count(b"\xff\xda", position)
    return CompressedHeader("JPEG", *size, components != 1, ended, one_scan, scans, components)


def _read_png(data: bytes, topic: str) -> CompressedHeader:
    _check_chunks(data, topic)
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    bits, colour = data[24], data[25]
    row_bytes = -(-width * bits * _PNG_CHANNELS.get(colour, 1) // 8)
    if height * row_bytes > _DEFLATE_RATIO * len(data):
        raise _truncated(
            "PNG", data, f"{height * row_bytes // _DEFLATE_RATIO} bytes for {width} x {height} pixels", topic
        )
    return CompressedHeader("PNG", width, height, colours=colour not in (0, 4), row_bytes=row_bytes)


def _check_chunks(data: bytes, topic: str) -> None:
    """Check that a PNG's chunks are complete, up to IEND: OpenCV allocates what a chunk's length says."""
    position = len(_PNG_SIGNATURE)
    for index in range(_MOST_CHUNKS):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        position += 12 + length
        if position > len(data) or (index == 0 and (kind, length) != (b"IHDR", 13)):
            break
        if kind == b"acTL":
            raise MessageError(topic, "wrong compressed format", "an animated PNG", "one image", "publish one by one")
        if kind == b"IEND":
            return
    raise _truncated("PNG", data, "complete chunks from IHDR to IEND", topic)


def _truncated(name: str, data: bytes, needed: str, topic: str) -> MessageError:
    remedy = "check the driver and the network's message size"
    return MessageError(topic, f"truncated {name}", f"{len(data)} bytes without an end", needed, remedy)
