# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Record of what was heard: times of every message, samples of large ones, all transforms and calibrations."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.reader import BagMessage

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO, CLOUD, TF = "sensor_msgs/msg/CameraInfo", "sensor_msgs/msg/PointCloud2", "tf2_msgs/msg/TFMessage"
IMAGES = (IMAGE, COMPRESSED)
SAMPLED = (*IMAGES, CLOUD)
"""Types of which only samples are decoded."""
SAMPLES = 5
"""Messages of a sensor that are decoded."""

_MOST_TRANSFORMS = 400_000
_MOST_CALIBRATIONS = 2_000
_MOST_ERRORS = 20
_HEADER_BYTES = 12
"""Bytes of encapsulation and stamp, before the rest of a message that may be compared."""


@dataclass
class Topic:
    """What was heard on one topic.

    Attributes:
        count: number of messages in the bag, which may exceed those heard.
        recorded: times of recording or arrival of the messages heard, in nanoseconds and in their order.
        stamps: stamps of their headers; empty for types without one.
        qos: profiles of the publishers, of rosbags or of rclpy.
        frames: number of messages by frame_id.
        samples: messages kept for decoding, spread over the time.
        errors: why messages could not be read.
        bytes: size of the messages heard.
        repeats: messages whose content equals the one before under another stamp; of sampled types only.
    """

    name: str
    type: str
    count: int = 0
    qos: tuple[Any, ...] = ()
    recorded: list[int] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    frames: Counter[str] = field(default_factory=Counter)
    samples: list[BagMessage] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    bytes: int = 0
    repeats: int = 0

    @property
    def frame(self) -> str:
        """The most frequent frame_id; empty without one."""
        return self.frames.most_common(1)[0][0] if self.frames else ""

    @property
    def reliable(self) -> bool:
        """Whether every recorded publisher offered reliable delivery; players publish so if none is recorded."""
        return all(profile.reliability.name != "BEST_EFFORT" for profile in self.qos)

    @property
    def is_static_tf(self) -> bool:
        return self.type == TF and self.name.endswith("tf_static")


@dataclass(frozen=True)
class HeardTransform:
    """One transform (geometry_msgs/TransformStamped) and when it was heard."""

    recorded_ns: int
    static: bool
    message: Any


class Observations:
    """Collector of messages in their order of recording or arrival.

    Args:
        topics: the known topics; messages of others are taken, too.
        whole: whether `Topic.count` says how many messages will come, so that samples can be spread over them.
    """

    def __init__(self, topics: tuple[Topic, ...] = (), whole: bool = True) -> None:
        self.topics = {topic.name: topic for topic in topics}
        self.transforms: list[HeardTransform] = []
        self.calibrations: dict[str, list[tuple[int, Any]]] = {}
        self.first_ns = self.last_ns = 0
        self._whole = whole
        self._strides: dict[str, int] = {}
        self._contents: dict[str, int] = {}

    def add(self, message: BagMessage) -> None:
        """Take a message. A message that cannot be read is noted with its topic."""
        topic = self.topics.setdefault(message.topic, Topic(message.topic, message.type))
        index = len(topic.recorded)
        topic.recorded.append(message.stamp_ns)
        topic.count = max(topic.count, index + 1)
        topic.bytes += len(message.data)
        self.first_ns = min(self.first_ns or message.stamp_ns, message.stamp_ns)
        self.last_ns = max(self.last_ns, message.stamp_ns)
        try:
            header = message.header()
            if header is not None:
                topic.stamps.append(header.stamp_ns)
                topic.frames[header.frame_id] += 1
            if topic.type == TF:
                self._add_transforms(topic, message)
            elif topic.type == INFO:
                self._add_calibration(message)
        except Exception as error:  # messages come from outside, and rosbags raises errors of many types
            note_error(topic, error)
            if topic.stamps and len(topic.stamps) < len(topic.recorded):
                topic.stamps.append(0)  # so that stamps and times of recording stay in step
        if topic.type in SAMPLED:
            self._sample(topic, message, index)

    def _add_transforms(self, topic: Topic, message: BagMessage) -> None:
        if len(self.transforms) < _MOST_TRANSFORMS:
            self.transforms += [
                HeardTransform(message.stamp_ns, topic.is_static_tf, one) for one in message.decode().transforms
            ]

    def _add_calibration(self, message: BagMessage) -> None:
        """Keep a calibration if it differs from the one before."""
        known = self.calibrations.setdefault(message.topic, [])
        content = hash(message.data[_HEADER_BYTES:])
        if self._contents.get(message.topic) != content and len(known) < _MOST_CALIBRATIONS:
            self._contents[message.topic] = content
            known.append((message.stamp_ns, message.decode()))

    def _sample(self, topic: Topic, message: BagMessage, index: int) -> None:
        content = hash(message.data[_HEADER_BYTES:])
        topic.repeats += self._contents.get(topic.name) == content
        self._contents[topic.name] = content
        stride = self._strides.setdefault(topic.name, max(1, -(-topic.count // SAMPLES)) if self._whole else 1)
        if index % stride:
            return
        topic.samples.append(message)
        if len(topic.samples) > SAMPLES and not self._whole:
            topic.samples, self._strides[topic.name] = topic.samples[::2], 2 * stride

    def of_type(self, *types: str) -> list[Topic]:
        """Return the topics of some types with at least one message, by name."""
        found = (topic for topic in self.topics.values() if topic.type in types and topic.recorded)
        return sorted(found, key=lambda topic: topic.name)

    @property
    def seconds(self) -> float:
        """Time from the first to the last message heard."""
        return (self.last_ns - self.first_ns) / 1e9


def note_error(topic: Topic, error: Exception) -> None:
    """Note why a message could not be read; of many, the first."""
    if len(topic.errors) < _MOST_ERRORS:
        text = str(error) if isinstance(error, BagError) else f"{type(error).__name__}: {error}"
        topic.errors.append(text)


def pairs(topic: Topic) -> list[tuple[int, int]]:
    """Return stamp and time of recording of the messages that have a stamp, in nanoseconds and in their order."""
    if len(topic.stamps) != len(topic.recorded):
        return []
    return list(zip(topic.stamps, topic.recorded, strict=True))
