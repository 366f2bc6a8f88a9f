# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A bag in bag time: its messages reach the assembler as they would reach an infinitely fast node.

The present is the recording time of the last message. Between two messages, the assembler is polled at the node's
period, in bag time, until nothing more can become due. No wall clock takes part.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from message_filters import SimpleFilter
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from aqr_perception.bags.reader import BagMessage, BagReader
from aqr_perception.nodes.input.assembler import Assembler
from aqr_perception.nodes.input.frame_request import AssemblerSettings, FrameRequest
from aqr_perception.nodes.input.message_history import GuardedFilter
from aqr_perception.nodes.input.transforms import TransformBuffer
from aqr_perception.offline.offline_error import OfflineError

POLL_NS = 20_000_000
"""Period of the node's own timer."""

MOVING_TF, STATIC_TF = "/tf", "/tf_static"
_AUTHORITY = "bag"
_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_INFO, _CLOUD, _TF = "sensor_msgs/msg/CameraInfo", "sensor_msgs/msg/PointCloud2", "tf2_msgs/msg/TFMessage"
_CLASSES = {_IMAGE: Image, _COMPRESSED: CompressedImage, _INFO: CameraInfo, _CLOUD: PointCloud2, _TF: TFMessage}


class DueFrame(NamedTuple):
    """A frame of a bag.

    Attributes:
        number: from 1, in the order in which frames became due.
        epoch: number of time jumps before the frame.
        due_ns: recording time at which the frame became due.
    """

    number: int
    request: FrameRequest
    epoch: int
    due_ns: int


class BagPlayback:
    """Frames of a bag. Use it from one thread, once.

    Transforms that a frame still lacks are taken from the messages up to `transform_wait` after the frame became due,
    as the node waits for them. As with a played bag, all static transforms and each camera's first calibration are
    there before the first message.

    Args:
        settings: see `Assembler`.
        warn: called with each warning.

    Attributes:
        buffer: transforms of the present; `clock` and `pause` are for `FrameSteps`.

    Raises:
        OfflineError: no configured sensor is in the bag, or a topic has another type.
    """

    def __init__(self, bag: BagReader, settings: AssemblerSettings, warn: Callable[[str], object]) -> None:
        self._bag, self._warn = bag, warn
        self._start_ns = self._now_ns = self._ahead_ns = self._ticked_ns = bag.start_ns
        self._epoch = self._number = 0
        self._tf_topics: frozenset[str] = frozenset()
        self._ahead: deque[BagMessage] = deque()
        self._looked_at = 0
        self._filters: dict[str, SimpleFilter] = {}
        self.assembler = Assembler(settings, self._on_time_jump, self._seconds, lambda: self._now_ns, lambda: True)
        self.buffer = TransformBuffer()
        self.buffer.now_ns, self.buffer.steady = self.assembler.now_ns, self._seconds
        self._settled_ns = round(
            1e9 * (settings.camera_wait + settings.lidar_timeout + settings.camera_only_period + 1.0)
        )
        self._connect(settings)
        self._messages = bag.messages(self._played_topics()) if len(bag) else iter(())

    @property
    def topics(self) -> Collection[str]:
        """The topics that are read."""
        return self._played_topics()

    def frames(self) -> Iterator[DueFrame]:
        """Yield the frames as they become due. Transforms of the present are those of the last yielded frame.

        Raises:
            BagError: the bag is broken.
        """
        self._deliver_latched()
        while (message := self._next()) is not None:
            yield from self._ticks(message.stamp_ns)
            self._now_ns = max(self._now_ns, message.stamp_ns)
            self._deliver(message)
            yield from self._poll()
        yield from self._ticks(self._now_ns + self._settled_ns)

    def clock(self) -> float:
        """Return the present in seconds, or how far `pause` has looked ahead."""
        return (self._ahead_ns - self._start_ns) / 1e9

    def pause(self, seconds: float) -> None:
        """Look ahead for the next transforms, at most by some seconds."""
        until_ns = self._ahead_ns + round(seconds * 1e9)
        while True:
            if self._looked_at == len(self._ahead):
                message = next(self._messages, None)
                if message is None:
                    break
                self._ahead.append(message)
            message = self._ahead[self._looked_at]
            if message.stamp_ns > until_ns:
                break
            self._looked_at += 1
            if message.topic in self._tf_topics:
                self._deliver(message)
        self._ahead_ns = until_ns

    # --- Time ------------------------------------------------------------------------------------------------------

    def _seconds(self) -> float:
        return (self._now_ns - self._start_ns) / 1e9

    def _ticks(self, until_ns: int) -> Iterator[DueFrame]:
        """Poll at each tick before a time, as long as something may become due."""
        last_ns = min(until_ns - 1, self._now_ns + self._settled_ns)
        while self._ticked_ns + POLL_NS <= last_ns:
            self._ticked_ns += POLL_NS
            if self._ticked_ns > self._now_ns:
                self._now_ns = self._ticked_ns
                yield from self._poll()
        if until_ns > self._ticked_ns + POLL_NS:  # silence: the ticks go on where messages do, on the same grid
            self._ticked_ns += (until_ns - 1 - self._ticked_ns) // POLL_NS * POLL_NS

    def _poll(self) -> Iterator[DueFrame]:
        request = self.assembler.poll()
        if request is not None:
            self._number += 1
            self._ahead_ns = self._now_ns
            yield DueFrame(self._number, request, self._epoch, self._now_ns)

    def _on_time_jump(self, seconds: float) -> None:
        self._warn(f"time jumped back by {seconds:.1f} s: all data and transforms are forgotten")
        self._epoch += 1
        self.buffer.clear()
        self._looked_at = 0  # what was looked ahead for is forgotten, too

    # --- Messages --------------------------------------------------------------------------------------------------

    def _next(self) -> BagMessage | None:
        """Return the next message that was not delivered by looking ahead."""
        while self._ahead:
            message = self._ahead.popleft()
            seen, self._looked_at = self._looked_at > 0, max(0, self._looked_at - 1)
            if not (seen and message.topic in self._tf_topics):
                return message
        return next(self._messages, None)

    def _deliver(self, message: BagMessage) -> None:
        decoded = self._decoded(message)
        if decoded is None:
            return
        if message.topic not in self._tf_topics:
            self._filters[message.topic].signalMessage(decoded)
            return
        store = self.buffer.set_transform_static if message.topic == STATIC_TF else self.buffer.set_transform
        for transform in decoded.transforms:
            try:
                store(transform, _AUTHORITY)
            except Exception as error:  # tf2 raises errors of several types
                self._warn(f"{message.topic}: a transform is left out: {error}")

    def _decoded(self, message: BagMessage) -> Any:
        """Return a message of ROS 2; None, with a warning, if it does not fit its type."""
        try:
            return deserialize_message(message.data, _CLASSES[message.type])
        except Exception as error:  # rmw raises errors of several types
            self._warn(f"{message.topic}: a message that is no {message.type} is left out: {error}")
            return None

    def _deliver_latched(self) -> None:
        """Deliver all static transforms and the first calibration of each camera; of equal frames, the first holds."""
        static: dict[str, Any] = {}
        if STATIC_TF in self._tf_topics:
            for message in self._bag.messages([STATIC_TF]):
                for transform in getattr(self._decoded(message), "transforms", ()):
                    static.setdefault(transform.child_frame_id, transform)
        for transform in static.values():
            self.buffer.set_transform_static(transform, _AUTHORITY)
        for topic in sorted(self._info_topics):
            first = next(iter(self._bag.messages([topic])), None)
            if first is not None:
                self._deliver(first)

    def _played_topics(self) -> list[str]:
        return sorted({*self._filters, *self._tf_topics})

    def _connect(self, settings: AssemblerSettings) -> None:
        """Connect the topics of the bag with the assembler."""
        types = {topic.name: topic.type for topic in self._bag.topics if topic.count}
        missing: dict[str, str] = {}
        self._info_topics: set[str] = set()
        for camera in settings.cameras:
            kind, parameter = _COMPRESSED if camera.compressed else _IMAGE, f"camera.{camera.name}"
            other = f"; set {parameter}.compressed to {'false' if camera.compressed else 'true'} if it has pictures"
            images = self._filter(types, camera.image_topic, kind, f"{parameter}.image_topic", other, missing)
            infos = self._filter(types, camera.info_topic, _INFO, f"{parameter}.info_topic", "", missing)
            self.assembler.connect_camera(camera.name, images, infos)
            self._info_topics |= {camera.info_topic} & types.keys()
        for lidar in settings.lidars:
            sweeps = self._filter(types, lidar.topic, _CLOUD, f"topic of {lidar.name}", "", missing)
            self.assembler.connect_lidar(sweeps, lidar.name)
        data = [camera.image_topic for camera in settings.cameras if settings.is_enabled(camera.name)]
        data += [lidar.topic for lidar in settings.lidars if settings.is_enabled(lidar.name)]
        known = ", ".join(f"{name} ({kind})" for name, kind in sorted(types.items())) or "none"
        if not any(topic in types for topic in data):
            raise OfflineError(
                f"{self._bag.path}: found the topics {known}, needed one of {', '.join(data)}; name the bag's topics "
                f"in a parameter file (--params), which `aqr_perception inspect BAG --params FILE` writes"
            )
        for topic, parameter in missing.items():
            self._warn(f"{parameter} is {topic}: found no message of it in the bag; frames are without it")
        self._tf_topics = frozenset(
            topic for topic in (MOVING_TF, STATIC_TF) if types.get(topic) == _TF and topic not in self._filters
        )

    def _filter(
        self, types: Mapping[str, str], topic: str, kind: str, parameter: str, remedy: str, missing: dict[str, str]
    ) -> SimpleFilter:
        """Return the filter of a topic; cameras may share a calibration."""
        if topic not in types:
            missing[topic] = parameter
            return SimpleFilter()
        if types[topic] != kind:
            raise OfflineError(
                f"{self._bag.path}: {parameter} is {topic}: found type {types[topic]}, needed {kind}{remedy}"
            )
        if topic not in self._filters:
            self._filters[topic] = GuardedFilter(topic, lambda error: self._warn(f"a message is dropped: {error}"))
        return self._filters[topic]
