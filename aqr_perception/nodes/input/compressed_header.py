"""Size and completeness of a JPEG or PNG, without decoding it."""

from dataclasses import dataclass

from aqr_perception.nodes.input.message_error import MessageError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA


@dataclass(frozen=True)
class CompressedHeader:
    """Format (``JPEG`` or ``PNG``), and width and height in pixels."""

    format: str
    width: int
    height: int


def read_header(data: bytes, topic: str) -> CompressedHeader:
    """Return the format and size of a compressed image; check that the data is complete.

    OpenCV decodes a truncated JPEG without an error and fills the rest with grey, so this function checks the end
    marker (ITU-T T.81, annex B; PNG: ISO/IEC 15948, clause 5).

    Raises:
        MessageError: the data is truncated, or not a JPEG or PNG.
    """
    if data.startswith(b"\xff\xd8"):
        return _read_jpeg(data, topic)
    if data.startswith(_PNG_SIGNATURE):
        return _read_png(data, topic)
    found = f"{len(data)} bytes that start with {data[:4].hex(' ') or 'nothing'}"
    raise MessageError(topic, "wrong compressed format", found, "a JPEG or a PNG", "publish jpeg or png compression")


def _read_jpeg(data: bytes, topic: str) -> CompressedHeader:
    position, size = 2, None
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte before a marker
            position += 1
            continue
        if marker in _START_OF_FRAME:
            height, width = (int.from_bytes(data[position + at : position + at + 2], "big") for at in (5, 7))
            size = CompressedHeader("JPEG", width, height)
        if marker == _START_OF_SCAN:
            break
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    # Inside a scan, 0x00 or a restart marker follows 0xFF, so this pair can only be the end of the image.
    if size is None or data.find(b"\xff\xd9", position) < 0:
        raise _truncated("JPEG", data, "the end-of-image marker FF D9", topic)
    return size


def _read_png(data: bytes, topic: str) -> CompressedHeader:
    if data.rfind(_PNG_END) < 0:
        raise _truncated("PNG", data, "the IEND chunk", topic)
    return CompressedHeader("PNG", int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))


def _truncated(name: str, data: bytes, end: str, topic: str) -> MessageError:
    remedy = "check the driver and the network's message size"
    return MessageError(topic, f"truncated {name}", f"{len(data)} bytes without an end", end, remedy)
