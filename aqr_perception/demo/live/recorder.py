"""Records what the perception node publishes, frame by frame."""

import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import Image

from aqr_perception.demo.recording import BEV, Answer, Recording
from aqr_perception.demo.truth import detections_of
from aqr_perception.msg import FrameTiming, FusedDetectionArray
from aqr_perception.nodes.stamps import stamp_to_ns

_NODE = "/aqr_perception"
_DEPTH = 20


class AnswerRecorder:
    """Subscribes to everything that is worth seeing; pictures are kept as JPEG files.

    The node must be spun by somebody else; the methods may be called from any thread.

    Args:
        camera_names: of the perception node's cameras.
    """

    def __init__(self, node: Node, camera_names: Sequence[str]) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._arrays: dict[int, FusedDetectionArray] = {}
        self._milliseconds: dict[int, float] = {}
        self._pictures: dict[int, dict[str, bytes]] = {}
        self._map_means: dict[int, dict[str, float]] = {}
        self._model = ""
        self._dropped = 0
        self._heard_at = time.monotonic()
        self._subscriptions = []
        for name in (BEV, *camera_names):
            self._listen(Image, f"{_NODE}/weights/{name}/image", partial(self._on_picture, name))
            self._listen(Image, f"{_NODE}/weights/{name}/raw", partial(self._on_map, name))
        self._listen(FrameTiming, f"{_NODE}/timing", self._on_timing)
        self._listen(FusedDetectionArray, f"{_NODE}/detections", self._on_detections)
        # The last one: subscriptions are announced in the order in which they are made, so the node that sends us its
        # health knows of all others too, and what it publishes from then on is not lost.
        self._listen(DiagnosticArray, "/diagnostics", self._on_health)

    @property
    def model(self) -> str:
        """What the node runs, in its own words; empty until it is active and has found every subscription."""
        return self._model

    @property
    def answers(self) -> int:
        return len(self._arrays)

    @property
    def silence(self) -> float:
        """Seconds since the last answer."""
        return time.monotonic() - self._heard_at

    def recording(self, trained: bool) -> Recording:
        """Return what came so far.

        Args:
            trained: whether the node was given weights.
        """
        with self._lock:
            answers = [self._answer(stamp_ns, self._arrays[stamp_ns]) for stamp_ns in sorted(self._arrays)]
            return Recording(answers, self._model, trained, self._dropped)

    def close(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _answer(self, stamp_ns: int, message: FusedDetectionArray) -> Answer:
        return Answer(
            stamp_ns=stamp_ns,
            detections=detections_of(message),
            camera_names=tuple(message.camera_names),
            left_out={sensor.name: sensor.reason for sensor in message.sensors if not sensor.used},
            source=message.weights_source,
            milliseconds=self._milliseconds.get(stamp_ns),
            pictures=self._pictures.get(stamp_ns, {}),
            map_means=self._map_means.get(stamp_ns, {}),
        )

    def _listen(self, kind: type, topic: str, callback: Any) -> None:
        self._subscriptions.append(self._node.create_subscription(kind, topic, callback, _DEPTH))

    def _on_detections(self, message: FusedDetectionArray) -> None:
        with self._lock:
            self._arrays[stamp_to_ns(message.header.stamp)] = message
            self._heard_at = time.monotonic()

    def _on_timing(self, message: FrameTiming) -> None:
        with self._lock:
            self._milliseconds[stamp_to_ns(message.header.stamp)] = message.total_milliseconds
            self._dropped = message.frames_dropped

    def _on_picture(self, name: str, message: Image) -> None:
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        jpeg = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, 88))[1].tobytes()
        with self._lock:
            self._pictures.setdefault(stamp_to_ns(message.header.stamp), {})[name] = jpeg

    def _on_map(self, name: str, message: Image) -> None:
        mean = float(np.frombuffer(message.data, np.float32).mean())
        with self._lock:
            self._map_means.setdefault(stamp_to_ns(message.header.stamp), {})[name] = mean

    def _on_health(self, message: DiagnosticArray) -> None:
        states = {status.name: status for status in message.status}
        frames, model = states.get("aqr_perception: frames"), states.get("aqr_perception: model")
        if frames is not None and model is not None and frames.message != "not active":
            self._model = next((pair.value for pair in model.values if pair.key == "running"), "")
