# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Bags with the node's outputs, shown as they were recorded."""

import heapq
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.poses import TransformTree, stamp_to_ns
from aqr_perception.bags.reader import BagMessage, BagReader
from aqr_perception.data.rig_file import Rig, RigCamera
from aqr_perception.data.sources.bag_topics import CLOUD, COMPRESSED, IMAGE, INFO, fixed_frame
from aqr_perception.simulator.bag import TRUTH_TOPIC
from aqr_perception.viewers.message_frames import BEV, MessageFrames, OutputTopics, is_lidar, used_stamps
from aqr_perception.viewers.node_topics import ViewError
from aqr_perception.viewers.shown_frame import ShownFrame

_DETECTIONS, _TRACKS = "aqr_perception/msg/FusedDetectionArray", "aqr_perception/msg/TrackArray"
_SAME_NS = 1000


class RecordedOutputs:
    """Bags, read as one, that hold the outputs of a node; use it as a context manager.

    Args:
        bags: the outputs, and possibly further bags with the sensors that they come from.
        node: full name of the node; empty: the only one in the bags.
        rig: topics and frames of the sensors; None: those that the bags' topics show.

    Raises:
        BagError: a bag cannot be read.
        ViewError: the bags have outputs of several nodes, or not of the one named.

    Attributes:
        node: full name of the node; empty if the bags have no outputs.
    """

    def __init__(self, bags: Sequence[Path], node: str = "", rig: Rig | None = None) -> None:
        self._stack, self._rig = ExitStack(), rig
        self._readers = [self._stack.enter_context(BagReader(path)) for path in bags]
        self._types = {topic.name: topic.type for bag in self._readers for topic in bag.topics if topic.count}
        self._place = ", ".join(map(str, bags))
        self.node = self._chosen(node)

    def __enter__(self) -> "RecordedOutputs":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def frames(self, count: int | None = None, progress: bool = False) -> Iterator[ShownFrame]:
        """Yield the recorded frames, at most `count`, in order.

        Raises:
            BagError: a bag is broken.
        """
        detections = [message.decode() for message in self._messages([f"{self.node}/detections"])][:count]
        stamps = [(stamp_to_ns(found.header.stamp), used_stamps(found)) for found in detections]
        tree = self._transforms()
        topics = self._output_topics(stamps, tree)
        joined = MessageFrames(topics, _lookup(tree), lambda: tree.frames)
        wanted = {topic: _sorted(joined, topic, detections) for topic in topics.all - set(topics.infos)}
        bar = tqdm(total=len(detections), unit="frame", desc="showing", disable=not progress)
        with bar:
            for frame in self._joined(joined, topics, wanted):
                bar.update()
                yield frame

    def _joined(
        self, joined: MessageFrames, topics: OutputTopics, wanted: Mapping[str, NDArray[np.int64]]
    ) -> Iterator[ShownFrame]:
        for message in self._messages(topics.all):
            times = wanted.get(message.topic)
            if times is None or _holds(times, _header_stamp(message.data)):
                yield from joined.add(message.topic, message.decode())
        yield from joined.rest()

    def _messages(self, topics: Collection[str]) -> Iterator[BagMessage]:
        """Yield the messages of all bags in the order of recording."""
        sources = []
        for bag in self._readers:
            own = set(topics) & {topic.name for topic in bag.topics}
            sources += [bag.messages(own)] if own else []
        return heapq.merge(*sources, key=lambda message: message.stamp_ns)

    def _chosen(self, node: str) -> str:
        names = [topic for topic, kind in self._types.items() if kind == _DETECTIONS and topic != TRUTH_TOPIC]
        nodes = sorted(name.removesuffix("/detections") for name in names if name.endswith("/detections"))
        if node:
            if node not in nodes:
                found = ", ".join(nodes) or "no outputs of a node"
                raise ViewError(f"{self._place}: found {found}, needed {node}/detections ({_DETECTIONS}) with messages")
            return node
        if len(nodes) > 1:
            raise ViewError(f"{self._place}: found outputs of {', '.join(nodes)}, needed one node; choose with --node")
        return nodes[0] if nodes else ""

    def _transforms(self) -> TransformTree:
        moving = [message.decode() for message in self._messages(["/tf"])]
        static = [message.decode() for message in self._messages(["/tf_static"])]
        return TransformTree(moving, static, self._place)

    def _output_topics(self, stamps: Sequence[tuple[int, Mapping[str, int]]], tree: TransformTree) -> OutputTopics:
        of_type: dict[str, list[str]] = {}
        for topic, kind in sorted(self._types.items()):
            of_type.setdefault(kind, []).append(topic)
        start, end = f"{self.node}/weights/", "/image"
        pictures = {
            topic[len(start) : -len(end)]: topic
            for topic in of_type.get(IMAGE, [])
            if topic.startswith(start) and topic.endswith(end)
        }
        names = {name for _, used in stamps for name in used if not is_lidar(name)}
        tracks = f"{self.node}/tracks"
        return OutputTopics(
            detections=f"{self.node}/detections",
            tracks=tracks if self._types.get(tracks) == _TRACKS else "",
            pictures=pictures,
            clouds=self._clouds(of_type.get(CLOUD, []), stamps),
            infos=tuple(of_type.get(INFO, [])),
            fixed_frame=fixed_frame(self._rig or Rig(), tree.frames),
            offsets={} if self._rig is None else {camera.name: camera.offset for camera in self._rig.cameras},
            images={name: camera for name in sorted(names - {*pictures, BEV}) if (camera := self._camera(name))},
        )

    def _clouds(self, topics: Sequence[str], stamps: Sequence[tuple[int, Mapping[str, int]]]) -> tuple[str, ...]:
        """Return the topics of the LiDARs in order: the rig's, or those with sweeps at the times in the detections."""
        if self._rig is not None:
            return self._rig.lidar_topics  # also missing ones: a LiDAR's place in the list is its name
        times = {topic: [_header_stamp(message.data) for message in self._messages([topic])] for topic in topics}
        found: list[str] = []
        lidars = sorted({name for _, used in stamps for name in used if is_lidar(name)})
        for lidar in lidars:
            needed = np.sort(np.array([used[lidar] for _, used in stamps if lidar in used], np.int64))
            fits = {
                topic: sum(_holds(needed, stamp) for stamp in times[topic]) for topic in topics if topic not in found
            }
            best = max(fits, key=lambda topic: fits[topic], default=None)
            if best is None or not fits[best]:
                break
            found.append(best)
        return tuple(found)

    def _camera(self, name: str) -> RigCamera | None:
        """Return the topics of a camera: the rig's, or those that its name shows."""
        if self._rig is not None:
            return next((camera for camera in self._rig.cameras if camera.name == name), None)
        for info in (topic for topic, kind in self._types.items() if kind == INFO):
            namespace = info.rpartition("/")[0]
            if namespace.rpartition("/")[2] == name:
                beside = [topic for topic in self._types if topic.startswith(f"{namespace}/")]
                images = [topic for topic in beside if self._types[topic] in (IMAGE, COMPRESSED)]
                usual = [f"{namespace}/image_raw/compressed", f"{namespace}/image_raw"]
                chosen = next((topic for topic in usual if topic in images), images[0] if len(images) == 1 else "")
                if chosen:
                    return replace(RigCamera(name), image_topic=chosen, info_topic=info)
        return None


def _lookup(tree: TransformTree) -> Any:
    def lookup(target: str, source: str, stamp_ns: int) -> NDArray[np.float64] | None:
        try:
            return tree.lookup(target, stamp_ns, source, stamp_ns)
        except BagError:
            return None

    return lookup


def _sorted(joined: MessageFrames, topic: str, detections: Sequence[Any]) -> NDArray[np.int64]:
    """Return the stamps of a topic's messages that belong to frames, ascending."""
    if topic == joined.topics.detections:
        return np.sort(np.array([stamp_to_ns(found.header.stamp) for found in detections], np.int64))
    stamps = [stamp for found in detections for stamp in joined.stamps(topic, found)]
    return np.sort(np.array(stamps, np.int64))


def _holds(times: NDArray[np.int64], stamp_ns: int) -> bool:
    """Return whether ascending times have one that is a stamp, but for rounding."""
    place = int(np.searchsorted(times, stamp_ns - _SAME_NS))
    return place < len(times) and int(times[place]) <= stamp_ns + _SAME_NS


def _header_stamp(data: bytes) -> int:
    """Return the stamp at the start of a message in CDR: four bytes of encapsulation, then seconds and nanoseconds."""
    order = "<" if data[1] & 1 else ">"
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
