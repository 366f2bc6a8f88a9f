# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Small bags of a vehicle with two cameras and a LiDAR, with room for faults."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aqr_perception.bags import messages
from aqr_perception.bags.poses import stamp_to_ns
from aqr_perception.bags.reader import BagMessage
from aqr_perception.bags.writer import BagWriter
from aqr_perception.geometry import rigid_transform

START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000
HEIGHT = 1.8
CAMERAS = ("front", "back")
SIZE = (64, 48)
POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4")])
Entry = tuple[int, str, Any]
"""Time of recording in nanoseconds, topic and message."""
Change = Callable[[Entry], Entry | list[Entry] | None]


def cloud_records(intensity: float = 200.0) -> np.ndarray:
    """Return a flat ground `HEIGHT` below the LiDAR, with intensities from 0 to a value."""
    rng = np.random.default_rng(0)
    records = np.zeros(3000, POINT)
    distance, azimuth = rng.uniform(3, 24, 3000), rng.uniform(-np.pi, np.pi, 3000)
    records["x"], records["y"], records["z"] = distance * np.cos(azimuth), distance * np.sin(azimuth), -HEIGHT
    records["intensity"] = np.linspace(0, intensity, 3000)
    return records


def frames(count: int = 12) -> Iterator[Entry]:
    """Yield the messages of a drive along x at 10 m/s."""
    optical = {"front": (-0.5, 0.5, -0.5, 0.5), "back": (0.5, 0.5, -0.5, -0.5)}
    mounts = [("lidar", rigid_transform((0, 0, HEIGHT), (0, 0, 0, 1)))]
    mounts += [(name, rigid_transform((0, 0, 1.5), quaternion)) for name, quaternion in optical.items()]
    static = [messages.transform(START_NS, "base_link", name, pose) for name, pose in mounts]
    yield START_NS, "/tf_static", messages.tf(static)
    rng = np.random.default_rng(1)
    for index in range(2 * count + 2):
        stamp = START_NS + index * PERIOD_NS // 2
        pose = rigid_transform((index * 0.5, 0, 0), (0, 0, 0, 1))
        yield stamp, "/tf", messages.tf([messages.transform(stamp, "odom", "base_link", pose)])
    matrix = np.array([[40.0, 0, 32], [0, 40, 24], [0, 0, 1]])
    for index in range(count):
        stamp = START_NS + (index + 1) * PERIOD_NS
        for name in CAMERAS:
            pixels = rng.integers(0, 255, (*SIZE[::-1], 3)).astype(np.uint8)
            yield stamp, f"/{name}/camera_info", messages.camera_info(stamp, name, SIZE, matrix)
            yield stamp, f"/{name}/image_raw", messages.image(stamp, name, pixels)
        yield stamp, "/lidar/points", messages.cloud(stamp, "lidar", cloud_records())


def write_small_bag(path: Path, change: Change = lambda entry: entry) -> Path:
    """Write `frames` as a bag.

    Args:
        change: returns an entry, several, or None to leave it out.
    """
    with BagWriter(path) as writer:
        for recorded, topic, message in _changed(change):
            writer.write(topic, message, recorded, latched=topic == "/tf_static")
    return path


def bag_messages(change: Change = lambda entry: entry) -> list[BagMessage]:
    """Return the messages of the bag that `write_small_bag` writes, without a file."""
    store = messages.TYPESTORE
    return [
        BagMessage(topic, one.__msgtype__, recorded, bytes(store.serialize_cdr(one, one.__msgtype__)), store)
        for recorded, topic, one in _changed(change)
    ]


def _changed(change: Change) -> list[Entry]:
    entries: list[Entry] = []
    for entry in frames():
        changed = change(entry)
        entries += changed if isinstance(changed, list) else [changed] if changed is not None else []
    return sorted(entries, key=lambda one: one[0])


def restamped(message: Any, shift_ns: int) -> Any:
    """Return a message whose stamp is shifted."""
    message.header.stamp = messages.time(stamp_to_ns(message.header.stamp) + shift_ns)
    return message


def without(*topics: str) -> Callable[[Entry], Entry | None]:
    """Return a change that leaves topics out."""
    return lambda entry: None if entry[1] in topics else entry


def changing(topic: str, edit: Callable[[Any], object]) -> Callable[[Entry], Entry]:
    """Return a change that edits the messages of a topic in place."""

    def change(entry: Entry) -> Entry:
        if entry[1] == topic:
            edit(entry[2])
        return entry

    return change
