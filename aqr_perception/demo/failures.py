"""Scheduled sensor failures during the playback of a bag."""

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
    """A temporary failure of one sensor.

    Attributes:
        sensor: a camera's name, or ``lidar``.
        topic: topic of the sensor's data.
        effect: ``black`` images of the same size, or no data at all (``gone``).
        begin, end: seconds since the bag's first message; the sensor works again at `end`.
    """

    sensor: str
    topic: str
    effect: Literal["black", "gone"]
    begin: float
    end: float

    def __str__(self) -> str:
        name = "LiDAR" if self.sensor == "lidar" else f"camera {self.sensor}"
        return f"{name} {self.effect}"

    def is_active(self, seconds: float) -> bool:
        return self.begin <= seconds < self.end


FAILURES = (
    Failure("front", "/front/image_raw/compressed", "black", 6.0, 12.0),
    Failure("lidar", "/lidar/points", "gone", 12.0, 16.0),
)
"""Failures of the demo."""


class FailingBag(BagReader):
    """A bag with simulated sensor failures; all other messages are unchanged.

    Failures apply by the messages' recording times.

    Raises:
        BagError: see `BagReader`; a failure's topic is missing, or a camera to turn black has no compressed images.
    """

    def __init__(self, path: str | Path, failures: Sequence[Failure]) -> None:
        super().__init__(path)
        self._failures = tuple(failures)
        types = {topic.name: topic.type for topic in self.topics}
        for failure in self._failures:
            black = failure.effect == "black"
            topic_type = types.get(failure.topic, "no such topic")
            if topic_type != _COMPRESSED if black else failure.topic not in types:
                self.close()
                needed = _COMPRESSED if black else "a topic of the bag"
                raise BagError(f"{self.path}: {failure.topic}: found {topic_type}, needed {needed} for '{failure}'")

    def messages(
        self, topics: Collection[str] = (), start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        for message in super().messages(topics, start_ns, stop_ns):
            effects = self._effects(message)
            if "gone" not in effects:
                yield _blackened(message) if "black" in effects else message

    def _effects(self, message: BagMessage) -> set[str]:
        seconds = (message.stamp_ns - self.start_ns) / 1e9
        failures = (failure for failure in self._failures if failure.topic == message.topic)
        return {failure.effect for failure in failures if failure.is_active(seconds)}


def _blackened(message: BagMessage) -> BagMessage:
    """Return a message of a compressed image with a black image of the same size."""
    content = message.decode()
    image = cv2.imdecode(content.data, cv2.IMREAD_COLOR)
    if image is None:
        found = f"{len(content.data)} bytes that OpenCV cannot decode"
        raise BagError(f"{message.topic}: found {found}, needed a JPEG or PNG image; record the bag again")
    black = dataclasses.replace(content, data=_black_jpeg(image.shape[0], image.shape[1]))
    return dataclasses.replace(message, data=bytes(TYPESTORE.serialize_cdr(black, message.type)))


@functools.cache
def _black_jpeg(height: int, width: int) -> NDArray[np.uint8]:
    encoded = cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1]
    return encoded.astype(np.uint8, copy=False).ravel()
