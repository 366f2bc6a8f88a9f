# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Topics of a bag: which ones a rig's sensors and labels are on, and when their messages were measured."""

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.reader import BagReader
from aqr_perception.data.rig_file import Rig, RigCamera
from aqr_perception.data.sources.bag_labels import LABEL_TYPES
from aqr_perception.simulator.bag import LIDAR_TOPIC, TRUTH_TOPIC

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO, CLOUD = "sensor_msgs/msg/CameraInfo", "sensor_msgs/msg/PointCloud2"
JSON_ENDINGS = (".labels.json", ".json")
_FIXED_FRAMES = ("map", "odom")
_REMEDY = "name the topics in a rig file (--rig)"


@dataclass(frozen=True)
class Stamps:
    """Times of a topic's messages, in order of measurement.

    Attributes:
        measured: (N,) int64, stamps in the headers, ascending.
        recorded: (N,) int64, times of recording, which find the messages in the bag.
    """

    measured: NDArray[np.int64]
    recorded: NDArray[np.int64]

    def nearest(self, stamp_ns: int, tolerance: float) -> int | None:
        """Return the index of the message nearest to a time; None if there is none within seconds."""
        if not len(self.measured):
            return None
        index = int(np.abs(self.measured - stamp_ns).argmin())
        return index if abs(int(self.measured[index]) - stamp_ns) <= tolerance * 1e9 else None


def bag_rig(bag: BagReader, rig: Rig | None, remedy: str = _REMEDY) -> Rig:
    """Return the rig of a bag: the given one, checked, or the one that the bag's topics show.

    Args:
        remedy: what to do where the topics leave a choice.

    Raises:
        BagError: a topic of the rig is missing or of another type; or, without a rig, the topics leave a choice.
    """
    types = {topic.name: topic.type for topic in bag.topics if topic.count}
    if rig is None:
        return _shown_rig(bag.path, types, remedy)
    for camera in rig.cameras:
        wanted = {None: (IMAGE, COMPRESSED), True: (COMPRESSED,), False: (IMAGE,)}[camera.compressed]
        _check_topic(bag.path, types, camera.image_topic, wanted, f"camera.{camera.name}.image_topic")
        _check_topic(bag.path, types, camera.info_topic, (INFO,), f"camera.{camera.name}.info_topic")
    for topic in rig.lidar_topics:
        _check_topic(bag.path, types, topic, (CLOUD,), "lidar_topic")
    return rig


def labels_place(bag: BagReader, rig: Rig) -> str | Path:
    """Return the topic of the labels, or the JSON beside the bag that has them.

    Raises:
        BagError: there are none, or several.
    """
    types = {topic.name: topic.type for topic in bag.topics if topic.count}
    if rig.labels.endswith(".json"):
        file = _beside(bag.path, rig.labels)
        if not file.is_file():
            raise BagError(f"{bag.path}: found no {file}, needed the file of the labels that the rig file names")
        return file
    if rig.labels:
        _check_topic(bag.path, types, rig.labels, tuple(LABEL_TYPES), "labels")
        return rig.labels
    if TRUTH_TOPIC in types:
        return TRUTH_TOPIC
    topics = [topic for topic, kind in types.items() if kind in LABEL_TYPES]
    files = [file for ending in JSON_ENDINGS if (file := _beside(bag.path, ending)).is_file()]
    places: list[str | Path] = [*topics, *files]
    if len(places) == 1:
        return places[0]
    found = ", ".join(map(str, places)) or f"none (topics: {', '.join(sorted(types)) or 'none'})"
    needed = (
        f"one topic with the true objects ({', '.join(LABEL_TYPES)}) or {_beside(bag.path, JSON_ENDINGS[0]).name} "
        "beside the bag"
    )
    raise BagError(f"{bag.path}: labels: found {found}, needed {needed}; name it in a rig file (--rig, data: labels)")


def read_stamps(bag: BagReader, topics: Collection[str]) -> dict[str, Stamps]:
    """Return the times of all messages of some topics, whose messages begin with a std_msgs/Header.

    Raises:
        BagError: a topic has no times, the same one throughout, or times of another unit than the first topic's.
    """
    times: dict[str, list[tuple[int, int]]] = {topic: [] for topic in topics}
    if not times:
        return {}
    for message in bag.messages(topics):
        times[message.topic].append((_header_stamp(message.data), message.stamp_ns))
    stamps = {}
    for topic, pairs in times.items():
        unique = dict(sorted(pairs))  # of several messages with one stamp, the last recorded
        measured = np.array(list(unique), np.int64)
        if (len(pairs) > 1 and len(unique) == 1) or (len(measured) and measured[0] <= 0):
            found = f"{len(pairs)} messages with stamps from {int(measured[0])} ns"
            needed = "the time of measurement in each header"
            raise BagError(f"{bag.path}: {topic}: found {found}, needed {needed}; set header.stamp in the driver")
        stamps[topic] = Stamps(measured, np.array(list(unique.values()), np.int64))
    return stamps


def check_times(bag: Path, stamps: Mapping[str, Stamps], labels: NDArray[np.int64], place: str) -> None:
    """Check that all sensors and the labels share a clock and its unit.

    Raises:
        BagError: the times of a topic lie outside those of the labels.
    """
    if not len(labels):
        return
    low, high = int(labels.min()) - 10**9, int(labels.max()) + 10**9
    for topic, times in stamps.items():
        if len(times.measured) and (times.measured[-1] < low or times.measured[0] > high):
            found = f"stamps from {times.measured[0] / 1e9:.3f} to {times.measured[-1] / 1e9:.3f} s"
            needed = f"times of the labels ({place}), {labels.min() / 1e9:.3f} to {labels.max() / 1e9:.3f} s"
            raise BagError(f"{bag}: {topic}: {found}, needed {needed}; check clock and unit of both")


def _header_stamp(data: bytes) -> int:
    """Return the stamp at the start of a message in CDR: four bytes of encapsulation, then seconds and nanoseconds."""
    order = "<" if data[1] & 1 else ">"
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def _check_topic(bag: Path, types: Mapping[str, str], topic: str, wanted: tuple[str, ...], parameter: str) -> None:
    if types.get(topic) in wanted:
        return
    fitting = ", ".join(sorted(name for name, kind in types.items() if kind in wanted)) or "none"
    found = f"of type {types[topic]}" if topic in types else "not in the bag, or empty"
    needed = f"a topic of {' or '.join(wanted)}; the bag has {fitting}"
    raise BagError(f"{bag}: {parameter} is {topic!r}: found {found}, needed {needed}")


def _shown_rig(bag: Path, types: Mapping[str, str], remedy: str) -> Rig:
    """Return the rig that the topics of a bag show."""
    cameras = []
    for info in sorted(topic for topic, kind in types.items() if kind == INFO):
        namespace = info.rpartition("/")[0]
        images = sorted(
            topic for topic, kind in types.items() if kind in (IMAGE, COMPRESSED) and topic.startswith(f"{namespace}/")
        )
        usual = [topic for topic in (f"{namespace}/image_raw", f"{namespace}/image_raw/compressed") if topic in images]
        if usual or len(images) == 1:
            cameras.append(RigCamera(namespace.removeprefix("/") or "camera", (usual or images)[0], info))
        else:
            found = ", ".join(images) or "no image topic"
            raise BagError(f"{bag}: {info}: found {found} beside it, needed one image topic; {remedy}")
    namespaces = tuple(camera.info_topic.rpartition("/")[0] + "/" for camera in cameras)
    pictures = [topic for topic, kind in types.items() if kind in (IMAGE, COMPRESSED)]
    left = [topic for topic in pictures if not namespaces or not topic.startswith(namespaces)]
    if left:
        found = f"pictures without a camera_info beside them on {', '.join(sorted(left))}"
        raise BagError(f"{bag}: {found}, needed the calibration of each camera; {remedy}")
    clouds = sorted(topic for topic, kind in types.items() if kind == CLOUD)
    if LIDAR_TOPIC in clouds:
        clouds = [LIDAR_TOPIC]
    if len(clouds) > 1:
        raise BagError(f"{bag}: found the point clouds {', '.join(clouds)}, needed one to choose; {remedy}")
    if not clouds and not cameras:
        found = ", ".join(f"{topic} ({kind})" for topic, kind in sorted(types.items())) or "no topic"
        raise BagError(f"{bag}: found {found}, needed a PointCloud2 or cameras with CameraInfo; {remedy}")
    return Rig(tuple(cameras), tuple(clouds))


def fixed_frame(rig: Rig, frames: Collection[str]) -> str:
    """Return the rig's fixed frame; without a rig file, one of the usual names that the bag's TF has."""
    if rig.source or rig.fixed_frame:
        return rig.fixed_frame
    return next((name for name in _FIXED_FRAMES if name in frames), "")


def _beside(bag: Path, ending: str) -> Path:
    """Return the file with an ending beside a bag: NAME.labels.json for NAME.mcap and for the folder NAME."""
    if not ending.startswith("."):
        return bag.parent / ending
    return bag.parent / f"{bag.stem if bag.is_file() else bag.name}{ending}"
