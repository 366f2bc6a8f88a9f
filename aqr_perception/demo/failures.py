# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Scheduled sensor failures during the playback of a bag."""

import dataclasses
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
from aqr_perception.demo.failing_pictures import TURNED_DEGREES, black_picture, dirty_picture, turned_picture

_COMPRESSED = "sensor_msgs/msg/CompressedImage"
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 92)

Effect = Literal["black", "dirty", "misaligned", "gone"]


@dataclass(frozen=True)
class Failure:
    """A temporary failure of one sensor.

    Attributes:
        sensor: a camera's name, or ``lidar``.
        topic: topic of the sensor's data.
        effect: no data at all (``gone``), or for a camera: ``black`` images, images through a ``dirty`` lens, or those
            of a camera that is turned by `failing_pictures.TURNED_DEGREES` against TF (``misaligned``).
        begin, end: seconds since the bag's first message; the sensor works again at `end`.
    """

    sensor: str
    topic: str
    effect: Effect
    begin: float
    end: float

    def __str__(self) -> str:
        name = "LiDAR" if self.sensor == "lidar" else f"camera {self.sensor}"
        detail = f" by {TURNED_DEGREES:g}°" if self.effect == "misaligned" else ""
        return f"{name} {self.effect}{detail}"

    def is_active(self, seconds: float) -> bool:
        return self.begin <= seconds < self.end

    @property
    def changes_images(self) -> bool:
        """Whether the sensor goes on sending images, but wrong ones."""
        return self.effect != "gone"


FAILURES = (
    Failure("front", "/front/image_raw/compressed", "black", 3.0, 6.0),
    Failure("lidar", "/lidar/points", "gone", 7.0, 10.0),
    Failure("front_left", "/front_left/image_raw/compressed", "dirty", 11.0, 14.0),
    Failure("back", "/back/image_raw/compressed", "misaligned", 15.0, 18.0),
)
"""Failures of the demo."""


class FailingBag(BagReader):
    """A bag with simulated sensor failures; all other messages are unchanged.

    Failures apply by the messages' recording times.

    Raises:
        BagError: see `BagReader`; a failure's topic is missing, or a camera with wrong images has no compressed ones.
    """

    def __init__(self, path: str | Path, failures: Sequence[Failure]) -> None:
        super().__init__(path)
        self._failures = tuple(failures)
        self._intrinsics: dict[str, NDArray[np.float64]] = {}
        types = {topic.name: topic.type for topic in self.topics}
        for failure in self._failures:
            topic_type = types.get(failure.topic, "no such topic")
            if topic_type != _COMPRESSED if failure.changes_images else failure.topic not in types:
                self.close()
                needed = _COMPRESSED if failure.changes_images else "a topic of the bag"
                raise BagError(f"{self.path}: {failure.topic}: found {topic_type}, needed {needed} for '{failure}'")
            if failure.effect == "misaligned":
                # Now, because reading the bag while it is read would disturb the reader.
                self._intrinsics[failure.topic] = self._first_intrinsics(failure.topic)

    def messages(
        self, topics: Collection[str] = (), start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        for message in super().messages(topics, start_ns, stop_ns):
            effects = self._effects(message)
            if "gone" not in effects:
                yield self._with_effects(message, effects)

    def _effects(self, message: BagMessage) -> list[Effect]:
        seconds = (message.stamp_ns - self.start_ns) / 1e9
        failures = (failure for failure in self._failures if failure.topic == message.topic)
        return [failure.effect for failure in failures if failure.is_active(seconds)]

    def _with_effects(self, message: BagMessage, effects: Sequence[Effect]) -> BagMessage:
        """Return a message of a compressed image as its failing camera takes it."""
        if not effects:
            return message
        content = message.decode()
        image = cv2.imdecode(content.data, cv2.IMREAD_COLOR)
        if image is None:
            found = f"{len(content.data)} bytes that OpenCV cannot decode"
            raise BagError(f"{message.topic}: found {found}, needed a JPEG or PNG image; record the bag again")
        picture = image.astype(np.uint8, copy=False)
        for effect in effects:
            picture = self._with_effect(picture, effect, message.topic)
        jpeg = cv2.imencode(".jpg", picture, _JPEG)[1].astype(np.uint8, copy=False).ravel()
        changed = dataclasses.replace(content, data=jpeg)
        return dataclasses.replace(message, data=bytes(TYPESTORE.serialize_cdr(changed, message.type)))

    def _with_effect(self, picture: NDArray[np.uint8], effect: Effect, topic: str) -> NDArray[np.uint8]:
        if effect == "misaligned":
            return turned_picture(picture, self._intrinsics[topic])
        return black_picture(picture) if effect == "black" else dirty_picture(picture)

    def _first_intrinsics(self, topic: str) -> NDArray[np.float64]:
        """Return the (3, 3) intrinsics of the first CameraInfo beside a topic of images."""
        name = f"{topic.split('/image')[0]}/camera_info"
        known = name in {each.name for each in self.topics}
        first = next(super().messages([name]), None) if known else None
        if first is None:
            self.close()
            raise BagError(f"{self.path}: found no {name}, needed the intrinsics of {topic} to turn its camera")
        return np.array(first.decode().k, np.float64).reshape(3, 3)
