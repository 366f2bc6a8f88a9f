"""Rosbag2 files (mcap and sqlite3, folder or single file), read without ROS."""

import sqlite3
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinitionFormat, Qos
from rosbags.rosbag2 import Reader, ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from aqr_perception.bags.errors import BagError

_REMEDY = "give a rosbag2 folder (with its metadata.yaml) or a single .mcap or .db3 file"
_BROKEN = (ReaderError, TypesysError, OSError, EOFError, sqlite3.Error, struct.error, ValueError, KeyError, IndexError)


@dataclass(frozen=True)
class BagTopic:
    """A topic of a bag.

    Attributes:
        type: message type, e.g. ``sensor_msgs/msg/Image``.
        count: messages in the bag.
        qos: profiles that the recorded publishers offered; possibly none.
    """

    name: str
    type: str
    count: int
    qos: tuple[Qos, ...] = ()


@dataclass(frozen=True)
class BagMessage:
    """One recorded message.

    Attributes:
        stamp_ns: when it was recorded, nanoseconds; not the header's stamp.
        data: the message in CDR, its encapsulation header included.
    """

    topic: str
    type: str
    stamp_ns: int
    data: bytes
    _typestore: Typestore = field(repr=False, compare=False)

    def decode(self) -> Any:
        """Return the message as a dataclass with the fields of its definition (arrays are NumPy arrays).

        Raises:
            BagError: the type is unknown to the bag and to rosbags, or the data does not fit it.
        """
        try:
            return self._typestore.deserialize_cdr(self.data, self.type)
        except (SerdeError, KeyError) as error:
            needed = f"a {self.type} as its definition has it"
            raise BagError(f"{self.topic}: found {len(self.data)} bytes ({error}), needed {needed}") from error


class BagReader:
    """A bag that is open for reading; iterating gives its messages in the order of their recording.

    Use it as a context manager. Message definitions come from the bag, and for standard types from rosbags.

    Raises:
        BagError: no bag is there, or it is broken.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise BagError(f"{self.path}: found nothing, needed a bag; {_REMEDY}")
        with self._explained():
            self._reader = Reader(self.path)
            self._reader.open()
        try:
            with self._explained():
                self._typestore = _typestore_of(self._reader.connections)
        except BaseException:
            self.close()
            raise

    @property
    def topics(self) -> tuple[BagTopic, ...]:
        return tuple(
            BagTopic(entry.topic, entry.msgtype, entry.msgcount, tuple(_qos(entry)))
            for entry in self._reader.connections
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
        """Give the messages of some topics (none named: of all) recorded in [start_ns, stop_ns).

        Raises:
            BagError: a topic is not in the bag, or the bag breaks off.
        """
        known = {entry.topic for entry in self._reader.connections}
        if unknown := sorted(set(topics) - known):
            raise BagError(f"{self.path}: found no topic {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        entries = [entry for entry in self._reader.connections if not topics or entry.topic in topics]
        if not entries:
            return
        with self._explained():
            for entry, stamp_ns, data in self._reader.messages(entries, start_ns, stop_ns):
                yield BagMessage(entry.topic, entry.msgtype, stamp_ns, bytes(data), self._typestore)

    def close(self) -> None:
        if self._reader.is_open:
            self._reader.close()

    def __enter__(self) -> "BagReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except _BROKEN as error:
            reason = f"{type(error).__name__}: {error}"
            raise BagError(f"{self.path}: found a broken bag ({reason}), needed a whole one; {_REMEDY}") from error


def read(path: str | Path, topics: Collection[str] = ()) -> Iterator[BagMessage]:
    """Give the messages of a bag, opened and closed on the way; see `BagReader`."""
    with BagReader(path) as reader:
        yield from reader.messages(topics)


def _qos(entry: Connection) -> list[Qos]:
    return entry.ext.offered_qos_profiles if isinstance(entry.ext, ConnectionExtRosbag2) else []


def _typestore_of(entries: Collection[Connection]) -> Typestore:
    store = get_typestore(Stores.ROS2_KILTED)
    for entry in entries:
        if entry.msgtype in store.fielddefs or entry.msgdef.format == MessageDefinitionFormat.NONE:
            continue
        if entry.msgdef.format == MessageDefinitionFormat.MSG:
            found = get_types_from_msg(entry.msgdef.data, entry.msgtype)
        else:
            found = get_types_from_idl(entry.msgdef.data)
        store.register({name: definition for name, definition in found.items() if name not in store.fielddefs})
    return store
