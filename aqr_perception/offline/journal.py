# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Answered frames of a bag that is not finished yet, in a file that a kill cannot spoil."""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

from aqr_perception.offline.offline_error import OfflineError

_HEAD = struct.Struct("<QI")  # length and CRC-32 of a record


class Blob(NamedTuple):
    """Bytes with a name and a type, such as a message in CDR with its topic."""

    name: str
    type: str
    data: bytes


@dataclass(frozen=True)
class AnsweredFrame:
    """Everything that the output files need of a frame.

    Attributes:
        number, due_ns: see `DueFrame`.
        line: the frame's JSON line, without the line's end.
        messages: published messages.
        blobs: arrays and pictures that are no messages.
        unanswered: number of frames without an answer so far.
        boxes: the frame's entries in a result file of nuScenes.
    """

    number: int
    stamp_ns: int
    due_ns: int
    line: str
    messages: Sequence[Blob] = ()
    blobs: Sequence[Blob] = ()
    unanswered: int = 0
    boxes: Sequence[Mapping[str, Any]] | None = None


class Journal:
    """File of answered frames, to which one process at a time appends. Use it as a context manager.

    What a kill left of an incomplete last record is removed when the file is opened.

    Attributes:
        last: the last frame in the file; None if there is none.

    Raises:
        OfflineError: another process writes the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last: AnsweredFrame | None = None
        self.count = 0
        self._file: BinaryIO = path.open("ab+")
        _lock(self._file, path)
        end = 0
        for frame, after in _records(self._file):
            self.last, end = frame, after
            self.count += 1
        self._file.truncate(end)
        self._file.seek(end)

    def append(self, frame: AnsweredFrame) -> None:
        """Append a frame; after a kill of this process, it is still there."""
        packed = _packed(frame)
        self._file.write(_HEAD.pack(len(packed), zlib.crc32(packed)) + packed)
        self._file.flush()
        self.last = frame
        self.count += 1

    def frames(self) -> Iterator[AnsweredFrame]:
        """Yield all frames in order. Do not append meanwhile."""
        for frame, _ in _records(self._file):
            yield frame

    def frames_by_stamp(self) -> Iterator[AnsweredFrame]:
        """Yield all frames in the order of their stamps, which differs after a time jump. Do not append meanwhile."""
        starts, start = [], 0
        for frame, after in _records(self._file):
            starts.append((frame.stamp_ns, start))
            start = after
        for _, start in sorted(starts):
            yield next(_records(self._file, start))[0]

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _lock(file: BinaryIO, path: Path) -> None:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise OfflineError(
            f"{path}: found another process that works on this bag ({error}), needed one; wait for it, or choose "
            "another --output"
        ) from error


def _records(file: BinaryIO, place: int = 0) -> Iterator[tuple[AnsweredFrame, int]]:
    """Yield the complete records of a file from a place on, and where each ends."""
    while True:
        file.seek(place)
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return
        length, checksum = _HEAD.unpack(head)
        packed = file.read(length)
        if len(packed) < length or zlib.crc32(packed) != checksum:
            return
        place += _HEAD.size + length
        yield _unpacked(packed), place


def _packed(frame: AnsweredFrame) -> bytes:
    blobs = [*frame.messages, *frame.blobs]
    head = json.dumps(
        {
            "number": frame.number,
            "stamp_ns": frame.stamp_ns,
            "due_ns": frame.due_ns,
            "line": frame.line,
            "unanswered": frame.unanswered,
            "boxes": frame.boxes,
            "messages": len(frame.messages),
            "sizes": [[blob.name, blob.type, len(blob.data)] for blob in blobs],
        }
    ).encode()
    return b"".join([struct.pack("<Q", len(head)), head, *(blob.data for blob in blobs)])


def _unpacked(packed: bytes) -> AnsweredFrame:
    (length,) = struct.unpack_from("<Q", packed)
    fields = json.loads(packed[8 : 8 + length])
    place, blobs = 8 + length, []
    for name, kind, size in fields.pop("sizes"):
        blobs.append(Blob(name, kind, packed[place : place + size]))
        place += size
    count = fields.pop("messages")
    return AnsweredFrame(messages=tuple(blobs[:count]), blobs=tuple(blobs[count:]), **fields)
