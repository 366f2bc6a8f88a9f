# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rosbag2 files (mcap and sqlite3, folder or single file), written without ROS."""

import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.messages import TYPESTORE

_SINGLE_FILES = {".mcap": StoragePlugin.MCAP, ".db3": StoragePlugin.SQLITE3}
_STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
_VERSION: Literal[8] = 8  # metadata with numeric QoS, readable by every distribution since Humble
_FOREVER = QosTime(0, 0)


class BagWriter:
    """Open bag for writing, which gets its name when it is complete. Use it as a context manager.

    Args:
        path: ``name.mcap`` and ``name.db3`` are single files, any other name is a folder with a metadata.yaml.
        storage: storage of a folder, ``mcap`` or ``sqlite3``.

    Raises:
        BagError: the path exists, or its parent folder does not.
    """

    def __init__(self, path: str | Path, storage: str = "mcap") -> None:
        self.path = Path(path)
        if self.path.exists():
            raise BagError(
                f"{self.path}: found an existing file or folder, needed a new name; remove it or choose another"
            )
        if not self.path.parent.is_dir():
            raise BagError(f"{self.path.parent}: found no such folder, needed one for {self.path.name}; create it")
        if storage not in _STORAGES:
            raise BagError(f"{self.path}: storage is {storage!r}, but must be one of {', '.join(_STORAGES)}")
        self._single_file = self.path.suffix in _SINGLE_FILES
        plugin = _SINGLE_FILES.get(self.path.suffix, _STORAGES[storage])
        self._folder = tempfile.TemporaryDirectory(prefix=f".{self.path.name}.", dir=self.path.parent)
        self._writer = Writer(Path(self._folder.name) / self.path.name, version=_VERSION, storage_plugin=plugin)
        self._writer.open()
        self._connections: dict[str, Connection] = {}

    def write(self, topic: str, message: Any, stamp_ns: int, *, latched: bool = False) -> None:
        """Write a message made by `bags.messages`.

        Args:
            stamp_ns: recording time in nanoseconds.
            latched: mark the topic as transient local, which keeps the last message for late subscribers.
        """
        data = TYPESTORE.serialize_cdr(message, message.__msgtype__)
        self.write_raw(topic, message.__msgtype__, data, stamp_ns, (publisher_qos(latched),))

    def write_raw(
        self, topic: str, message_type: str, data: bytes | memoryview, stamp_ns: int, qos: tuple[Qos, ...] = ()
    ) -> None:
        """Write a message in CDR. A topic keeps the type and QoS of its first message.

        Raises:
            BagError: the topic has another type, or the type's definition is unknown.
        """
        connection = self._connections.get(topic)
        if connection is None:
            if message_type not in TYPESTORE.fielddefs:
                raise BagError(f"{topic}: found type {message_type}, needed one of ROS 2's common interfaces")
            connection = self._writer.add_connection(
                topic, message_type, typestore=TYPESTORE, offered_qos_profiles=qos or (publisher_qos(),)
            )
            self._connections[topic] = connection
        if connection.msgtype != message_type:
            raise BagError(f"{topic}: found a {message_type}, needed a {connection.msgtype}, as in the first message")
        self._writer.write(connection, stamp_ns, data)

    def close(self) -> None:
        """Complete the bag and move it to its path."""
        with self._folder:
            self._writer.close()
            written = self._writer.path
            if self._single_file:
                (written,) = (entry for entry in written.iterdir() if entry.suffix == self.path.suffix)
            os.replace(written, self.path)

    def __enter__(self) -> "BagWriter":
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        if failure is None:
            self.close()
        else:
            self._writer.abort()
            self._folder.cleanup()


def publisher_qos(latched: bool = False) -> Qos:
    """Return the profile of a reliable publisher with a queue of ten messages, transient local if latched."""
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=10,
        reliability=QosReliability.RELIABLE,
        durability=durability,
        deadline=_FOREVER,
        lifespan=_FOREVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_FOREVER,
        avoid_ros_namespace_conventions=False,
    )
