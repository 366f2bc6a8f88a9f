# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rosbag2 files (mcap and sqlite3, folder or single file), read without ROS."""

import sqlite3
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection, ConnectionExtRosbag2, Qos
from rosbags.rosbag2 import ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys.store import Typestore

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.messages import TYPESTORE

_HEADER = "std_msgs/msg/Header"
_REMEDY = "give a rosbag2 folder (with its metadata.yaml) or a single .mcap or .db3 file"
_BROKEN = (
    AnyReaderError, ReaderError, OSError, EOFError, sqlite3.Error, struct.error, ValueError, KeyError, IndexError,
    AssertionError, TypeError,
)  # fmt: skip
"""Exceptions that rosbags raises on broken files."""


@dataclass(frozen=True)
class BagTopic:
    """A topic of a bag.

    Attributes:
        type: message type, e.g. ``sensor_msgs/msg/Image``.
        count: number of messages in the bag.
        qos: profiles that the recorded publishers offered; possibly none.
    """

    name: str
    type: str
    count: int
    qos: tuple[Qos, ...] = ()


class Header(NamedTuple):
    """Stamp in nanoseconds and TF frame of a std_msgs/Header."""

    stamp_ns: int
    frame_id: str


@dataclass(frozen=True)
class BagMessage:
    """A recorded message.

    Attributes:
        stamp_ns: recording time in nanoseconds, which may differ from the header's stamp.
        data: the message in CDR with its encapsulation header.
    """

    topic: str
    type: str
    stamp_ns: int
    data: bytes
    _typestore: Typestore = field(repr=False, compare=False)

    def header(self) -> Header | None:
        """Return the header at the start of the message, without decoding the rest; None if its type has none there.

        Raises:
            BagError: the data is too short for a header.
        """
        fields = self._typestore.fielddefs.get(self.type, ((), ()))[1]
        if not fields or fields[0][1][1] != _HEADER:
            return None
        try:
            order = "<" if self.data[1] & 1 else ">"
            seconds, nanoseconds, length = struct.unpack_from(f"{order}iII", self.data, 4)
            frame = self.data[16 : 16 + max(length - 1, 0)]
            if len(frame) < max(length - 1, 0):
                raise IndexError(f"frame_id of {length} bytes")
        except (struct.error, IndexError) as error:
            found = f"{len(self.data)} bytes ({error})"
            raise BagError(f"{self.topic}: found {found}, needed a {self.type}; record the bag again") from error
        return Header(seconds * 1_000_000_000 + nanoseconds, frame.decode(errors="replace"))

    def decode(self) -> Any:
        """Return the message as a dataclass with the fields of its definition; arrays are NumPy arrays.

        Raises:
            BagError: the type is not defined, or the data does not fit it.
        """
        try:
            return self._typestore.deserialize_cdr(self.data, self.type)
        except (SerdeError, KeyError) as error:
            needed = f"a {self.type} according to its definition; record the bag again"
            raise BagError(f"{self.topic}: found {len(self.data)} bytes ({error}), needed {needed}") from error


class BagReader:
    """Open bag for reading; iteration yields its messages in recording order.

    Use it as a context manager. Message definitions come from the bag. Without them, the definitions of ROS 2's common
    interfaces and of this package are used.

    Raises:
        BagError: the bag does not exist or is broken.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise BagError(f"{self.path}: found no such file or folder, needed a bag; {_REMEDY}")
        if self.path.suffix == ".bag":
            needed = "needed a rosbag2; rename a rosbag2 folder, or convert a ROS 1 file with `rosbags-convert`"
            raise BagError(f"{self.path}: found the suffix of ROS 1 bags, {needed}")
        with self._explained_errors():
            self._reader = AnyReader([self.path], default_typestore=TYPESTORE)
            self._reader.open()

    @property
    def topics(self) -> tuple[BagTopic, ...]:
        """The topics of the bag, by name."""
        return tuple(
            BagTopic(name, info.connections[0].msgtype, info.msgcount, _qos_profiles(info.connections))
            for name, info in self._reader.topics.items()
        )

    @property
    def start_ns(self) -> int:
        """Recording time of the first message; 0 in an empty bag."""
        return self._reader.start_time if len(self) else 0

    @property
    def end_ns(self) -> int:
        """Recording time just after the last message; 0 in an empty bag."""
        return self._reader.end_time if len(self) else 0

    def __len__(self) -> int:
        return self._reader.message_count

    def __iter__(self) -> Iterator[BagMessage]:
        return self.messages()

    def messages(
        self, topics: Collection[str] = (), start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """Yield the messages of some topics (all topics by default) recorded in [start_ns, stop_ns).

        Raises:
            BagError: a topic is not in the bag, or the bag is truncated.
        """
        known = self._reader.topics
        if unknown := sorted(set(topics) - known.keys()):
            needed = ", ".join(sorted(known))
            raise BagError(f"{self.path}: found no topic {', '.join(unknown)}, needed one of {needed}")
        connections = [entry for entry in self._reader.connections if not topics or entry.topic in topics]
        if not connections:
            return
        with self._explained_errors():
            for entry, stamp_ns, data in self._reader.messages(connections, start_ns, stop_ns):
                yield BagMessage(entry.topic, entry.msgtype, stamp_ns, bytes(data), self._reader.typestore)

    def close(self) -> None:
        self._reader.close()

    def __enter__(self) -> "BagReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _explained_errors(self) -> Iterator[None]:
        try:
            yield
        except _BROKEN as error:
            reason = f"{type(error).__name__}: {error}"
            raise BagError(f"{self.path}: found a broken bag ({reason}), needed a complete one; {_REMEDY}") from error


def _qos_profiles(connections: Collection[Connection]) -> tuple[Qos, ...]:
    return tuple(
        profile
        for entry in connections
        if isinstance(entry.ext, ConnectionExtRosbag2)
        for profile in entry.ext.offered_qos_profiles
    )
