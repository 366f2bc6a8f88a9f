# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Times of recording of all messages of a bag, from its index: messages themselves are not read."""

import sqlite3
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"\x89MCAP0\r\n"
_RECORD = struct.Struct("<BQ")
_FOOTER_BYTES = 9 + 20 + len(_MAGIC)
_CHANNEL, _MESSAGE_INDEX, _CHUNK_INDEX = 4, 7, 8


def recording_times(path: Path) -> dict[str, NDArray[np.int64]] | None:
    """Return the times in nanoseconds of all messages by topic, ascending.

    See the formats, https://mcap.dev/spec and rosbag2_storage_sqlite3.

    Args:
        path: a file, or the folder of a bag.

    Returns:
        None if a file has no index that can be read, such as a compressed file.
    """
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.suffix != ".yaml")
    times: dict[str, list[NDArray[np.int64]]] = defaultdict(list)
    try:
        for file in files:
            read = {".mcap": _mcap_times, ".db3": _sqlite_times}[file.suffix]
            for topic, some in read(file):
                times[topic].append(some)
    except (KeyError, OSError, struct.error, sqlite3.Error, ValueError, IndexError):
        return None
    return {topic: np.sort(np.concatenate(some)) for topic, some in times.items()}


def _sqlite_times(path: Path) -> Iterator[tuple[str, NDArray[np.int64]]]:
    connection = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
    try:
        for number, topic in connection.execute("SELECT id, name FROM topics").fetchall():
            rows = connection.execute("SELECT timestamp FROM messages WHERE topic_id = ?", (number,))
            yield topic, np.fromiter((row[0] for row in rows), np.int64)
    finally:
        connection.close()


def _mcap_times(path: Path) -> Iterator[tuple[str, NDArray[np.int64]]]:
    with path.open("rb") as file:
        topics, chunks = _summary(file)
        if not chunks:
            raise ValueError("no index")
        for offset, length in chunks:
            file.seek(offset)
            for opcode, content in _records(file.read(length)):
                if opcode == _MESSAGE_INDEX:
                    number, size = struct.unpack_from("<HI", content)
                    entries = np.frombuffer(content, "<u8", size // 8, 6).reshape(-1, 2)
                    yield topics[number], entries[:, 0].astype(np.int64)


def _summary(file: BinaryIO) -> tuple[dict[int, str], list[tuple[int, int]]]:
    """Return topics by channel, and place and length of the message indexes behind each chunk."""
    size = file.seek(0, 2)
    file.seek(max(size - _FOOTER_BYTES, 0))
    tail = file.read(_FOOTER_BYTES)
    if len(tail) < _FOOTER_BYTES or not tail.endswith(_MAGIC):
        raise ValueError("no end")
    (start,) = struct.unpack_from("<Q", tail, 9)
    if not 0 < start < size:
        raise ValueError("no summary")
    file.seek(start)
    topics: dict[int, str] = {}
    chunks = []
    for opcode, content in _records(file.read(size - start - _FOOTER_BYTES)):
        if opcode == _CHANNEL:
            number, _, length = struct.unpack_from("<HHI", content)
            topics[number] = content[8 : 8 + length].decode()
        elif opcode == _CHUNK_INDEX:
            begin, chunk_length, map_bytes = struct.unpack_from("<QQI", content, 16)
            (index_length,) = struct.unpack_from("<Q", content, 36 + map_bytes)
            chunks.append((begin + chunk_length, index_length))
    return topics, chunks


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + _RECORD.size <= len(data):
        opcode, length = _RECORD.unpack_from(data, place)
        place += _RECORD.size
        yield opcode, data[place : place + length]
        place += length
