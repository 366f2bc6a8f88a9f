# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Readable copy of an mcap file that lacks its end, as after a crash of the recorder."""

import shutil
import struct
from pathlib import Path

_MAGIC = b"\x89MCAP0\r\n"
_DATA_END, _FOOTER = 15, 2
_RECORD = struct.Struct("<BQ")
MOST_BYTES = 4 * 10**9
"""Largest file of which a copy is made."""


def repaired_copy(path: Path, folder: Path) -> tuple[Path, int] | None:
    """Write the whole records of an mcap file to another file, with an end but without an index.

    See the format, https://mcap.dev/spec: a file is records of an opcode, a length and content.

    Returns:
        The copy, and the number of bytes at the end of the file that belong to no whole record; None if the file is no
        mcap, has no whole record, or is too large.
    """
    size = path.stat().st_size
    if size > MOST_BYTES:
        return None
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return None
        end = len(_MAGIC)
        while True:
            head = file.read(_RECORD.size)
            if len(head) < _RECORD.size:
                break
            opcode, length = _RECORD.unpack(head)
            if opcode in (_FOOTER, _DATA_END) or end + _RECORD.size + length > size:
                break
            end += _RECORD.size + length
            file.seek(end)
        if end == len(_MAGIC):
            return None
        copy = folder / path.name
        file.seek(0)
        with copy.open("wb") as target:
            shutil.copyfileobj(_Limited(file, end), target, 1 << 20)
            target.write(_RECORD.pack(_DATA_END, 4) + bytes(4) + _RECORD.pack(_FOOTER, 20) + bytes(20) + _MAGIC)
    return copy, size - end


class _Limited:
    """Reader of the first bytes of a file."""

    def __init__(self, file: "object", count: int) -> None:
        self._file, self._left = file, count

    def read(self, count: int = -1) -> bytes:
        data: bytes = self._file.read(min(count, self._left) if count >= 0 else self._left)  # type: ignore[attr-defined]
        self._left -= len(data)
        return data
