"""Sensors that fail on schedule while a bag is played."""

import dataclasses
import functools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.messages import TYPESTORE
from aqr_perception.bags.reader import BagMessage, BagReader

_COMPRESSED = "sensor_msgs/msg/CompressedImage"


@dataclass(frozen=True)
class Failure:
    """A sensor that fails for a while.

    Attributes:
        sensor: a camera's name, or ``lidar``.
        topic: of its data.
        effect: ``black`` pictures of the same size, or data ``gone``.
        begin, end: seconds after the bag's first message; at `end` the sensor works again.
    """

    sensor: str
    topic: str
    effect: Literal["black", "gone"]
    begin: float
    end: float

    def __str__(self) -> str:
        name = "LiDAR" if self.sensor == "lidar" else f"camera {self.sensor}"
        return f"{name} {self.effect}"

    def holds(self, seconds: float) -> bool:
        return self.begin <= seconds < self.end


FAILURES = (
    Failure("front", "/front/image_raw/compressed", "black", 6.0, 12.0),
    Failure("lidar", "/lidar/points", "gone", 12.0, 16.0),
)
"""The demo's schedule."""


class FailingBag(BagReader):
    """A bag whose sensors fail: its messages are the recorded ones, but for failures at the time of recording.

    Raises:
        BagError: see `BagReader`; or a topic that is to turn black holds something else than compressed pictures.
    """

    def __init__(self, path: str | Path, failures: Sequence[Failure]) -> None:
        super().__init__(path)
        self._failures = tuple(failures)
        types = {topic.name: topic.type for topic in self.topics}
        for failure in self._failures:
            found = types.get(failure.topic, "no such topic")
            if found != _COMPRESSED if failure.effect == "black" else failure.topic not in types:
                self.close()
                needed = _COMPRESSED if failure.effect == "black" else "a topic of the bag"
                raise BagError(f"{self.path}: {failure.topic}: found {found}, needed {needed} for '{failure}'")

    def messages(
        self, topics: Collection[str] = (), start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        for message in super().messages(topics, start_ns, stop_ns):
            effects = self._effects(message)
            if "gone" not in effects:
                yield _blackened(message) if "black" in effects else message

    def _effects(self, message: BagMessage) -> set[str]:
        seconds = (message.stamp_ns - self.start_ns) / 1e9
        return {
            failure.effect for failure in self._failures if failure.topic == message.topic and failure.holds(seconds)
        }


def _blackened(message: BagMessage) -> BagMessage:
    """Return a compressed picture's message with a black picture of the same size in it."""
    content = message.decode()
    picture = cv2.imdecode(content.data, cv2.IMREAD_COLOR)
    if picture is None:
        raise BagError(f"{message.topic}: found {len(content.data)} bytes that OpenCV cannot decode, needed a picture")
    black = dataclasses.replace(content, data=_black_jpeg(picture.shape[0], picture.shape[1]))
    return dataclasses.replace(message, data=bytes(TYPESTORE.serialize_cdr(black, message.type)))


@functools.cache
def _black_jpeg(height: int, width: int) -> NDArray[np.uint8]:
    encoded = cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1]
    return encoded.astype(np.uint8, copy=False).ravel()
