# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Recorder of the perception node's outputs, frame by frame."""

import math
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import Image, PointCloud2

from aqr_perception.bags.detections import detections_from_message
from aqr_perception.demo.recording import BEV, FrameRecord, QueryRecord, Recording
from aqr_perception.msg import FrameTiming, FusedDetectionArray
from aqr_perception.nodes.stamps import stamp_to_ns
from aqr_perception.report.report_frame import LIDAR

_NODE = "/aqr_perception"
_DEPTH = 20
_ATTENTION = "attention_"
_SENSOR_STATUS = "aqr_perception: sensor "
_NUMBER = re.compile(r"[\d.]+")
_REPORT_REACH_NS = 1_000_000_000
"""Longest time from a frame to the report of /diagnostics that counts for it; the node reports once a second."""


_AGE_ERROR_NS = 1000
"""Rounding of a sensor's age, a float32 in seconds, is smaller."""

ValueT = TypeVar("ValueT")


class _MapValues(NamedTuple):
    """Mean of a weight map, whether it has negative values, and its rows and columns."""

    mean: float
    negative: bool
    shape: tuple[int, int]


class OutputRecorder:
    """Subscriber that records the outputs of the perception node; pictures are stored as JPEG files.

    The caller spins the node. All methods are thread-safe.

    Args:
        camera_names: the perception node's cameras.
    """

    def __init__(self, node: Node, camera_names: Sequence[str]) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._arrays: dict[int, FusedDetectionArray] = {}
        self._milliseconds: dict[int, float] = {}
        self._pictures: dict[str, dict[int, bytes]] = {}
        self._maps: dict[str, dict[int, _MapValues]] = {}
        self._stages: dict[int, dict[str, float]] = {}
        self._queries: dict[int, QueryRecord] = {}
        self._doubts: dict[int, dict[str, str]] = {}
        self._model = ""
        self._dropped = 0
        self._last_output = time.monotonic()
        self._subscriptions: list[Any] = []
        for name in (BEV, *camera_names):
            self._subscribe(Image, f"{_NODE}/weights/{name}/image", partial(self._on_picture, name))
            self._subscribe(Image, f"{_NODE}/weights/{name}/raw", partial(self._on_map, name))
        self._subscribe(PointCloud2, f"{_NODE}/queries", self._on_queries)
        self._subscribe(FrameTiming, f"{_NODE}/timing", self._on_timing)
        self._subscribe(FusedDetectionArray, f"{_NODE}/detections", self._on_detections)
        # Must be last: DDS announces subscriptions in this order, so once diagnostics arrive, the node has discovered
        # all the others and no output is lost.
        self._subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics)

    @property
    def model(self) -> str:
        """The node's description of its model; empty until the node is active and has discovered all subscriptions."""
        return self._model

    @property
    def seconds_since_output(self) -> float:
        """Seconds since the last detections arrived."""
        return time.monotonic() - self._last_output

    def has_finished_near(self, stamp_ns: int, reach_ns: int) -> bool:
        """Return whether the node has finished a frame near a stamp.

        Its detections come earlier, but until then the node still draws pictures and cannot begin another frame.
        """
        with self._lock:
            return any(abs(found - stamp_ns) <= reach_ns for found in self._milliseconds)

    def recording(self, trained: bool, seconds: float = math.nan, seconds_held: float = 0.0) -> Recording:
        """Return everything received so far.

        Args:
            trained: whether the node runs trained weights.
            seconds, seconds_held: see `Recording`.
        """
        with self._lock:
            frames = [self._frame_record(stamp_ns, self._arrays[stamp_ns]) for stamp_ns in sorted(self._arrays)]
            return Recording(frames, self._model, trained, self._dropped, seconds, seconds_held)

    def close(self) -> None:
        """Destroy the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _frame_record(self, stamp_ns: int, message: FusedDetectionArray) -> FrameRecord:
        # Weight images of a camera have the stamp of its own image.
        used = {sensor.name: stamp_ns - round(sensor.age * 1e9) for sensor in message.sensors if sensor.used}
        stamps = {**used, BEV: stamp_ns}
        maps = _at_stamps(self._maps, stamps)
        return FrameRecord(
            stamp_ns=stamp_ns,
            detections=detections_from_message(message),
            camera_names=tuple(message.camera_names),
            unused={sensor.name: sensor.reason for sensor in message.sensors if not sensor.used},
            milliseconds=self._milliseconds.get(stamp_ns),
            pictures=_at_stamps(self._pictures, stamps),
            map_means={name: values.mean for name, values in maps.items()},
            negative_maps=any(values.negative for values in maps.values()),
            map_shapes={name: values.shape for name, values in maps.items()},
            ages={sensor.name: sensor.age for sensor in message.sensors},
            doubts=self._doubts_at(stamp_ns, {sensor.name for sensor in message.sensors if sensor.used}),
            stages=self._stages.get(stamp_ns, {}),
            queries=self._queries.get(stamp_ns),
        )

    def _doubts_at(self, stamp_ns: int, used: Collection[str]) -> dict[str, str]:
        """Return what the first report after a frame says about the sensors that it uses."""
        later = [stamp for stamp in self._doubts if 0 <= stamp - stamp_ns <= _REPORT_REACH_NS]
        found = self._doubts[min(later)] if later else {}
        return {name: text for name, text in found.items() if name in used}

    def _subscribe(self, message_type: type, topic: str, callback: Callable[[Any], None]) -> None:
        self._subscriptions.append(self._node.create_subscription(message_type, topic, callback, _DEPTH))

    def _on_detections(self, message: FusedDetectionArray) -> None:
        with self._lock:
            self._arrays[stamp_to_ns(message.header.stamp)] = message
            self._last_output = time.monotonic()

    def _on_timing(self, message: FrameTiming) -> None:
        with self._lock:
            self._milliseconds[stamp_to_ns(message.header.stamp)] = message.total_milliseconds
            self._stages[stamp_to_ns(message.header.stamp)] = dict(
                zip(message.stages, message.milliseconds, strict=True)
            )
            self._dropped = message.frames_dropped

    def _on_queries(self, message: PointCloud2) -> None:
        values = np.frombuffer(message.data, "<f4").reshape(message.width, len(message.fields))
        columns = {field.name: values[:, place] for place, field in enumerate(message.fields)}
        attention = {
            _after(_ATTENTION, name): column for name, column in columns.items() if name.startswith(_ATTENTION)
        }
        pixels = {
            _after("u_", name): np.stack([column, columns["v_" + _after("u_", name)]], axis=1)
            for name, column in columns.items()
            if name.startswith("u_")
        }
        with self._lock:
            self._queries[stamp_to_ns(message.header.stamp)] = QueryRecord(values[:, :3], attention, pixels)

    def _on_picture(self, name: str, message: Image) -> None:
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        jpeg = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, 82))[1].tobytes()
        with self._lock:
            self._pictures.setdefault(name, {})[stamp_to_ns(message.header.stamp)] = jpeg

    def _on_map(self, name: str, message: Image) -> None:
        values = np.frombuffer(message.data, np.float32)
        with self._lock:
            stored = self._maps.setdefault(name, {})
            stored[stamp_to_ns(message.header.stamp)] = _MapValues(
                float(values.mean()), bool((values < 0).any()), (message.height, message.width)
            )

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        statuses = {status.name: status for status in message.status}
        frames, model = statuses.get("aqr_perception: frames"), statuses.get("aqr_perception: model")
        if frames is not None and model is not None and frames.message != "not active":
            self._model = next((pair.value for pair in model.values if pair.key == "running"), "")
        sensors = {_after(_SENSOR_STATUS, name): status for name, status in statuses.items() if _SENSOR_STATUS in name}
        doubts = {name: status.message for name, status in sensors.items() if status.level != DiagnosticStatus.OK}
        # What holds for all cameras alike is due to a pause of the playback.
        kinds = {name: _NUMBER.sub("", text.split(":")[0]) for name, text in doubts.items()}
        of_cameras = [kinds.get(name, "") for name in sensors if not name.startswith(LIDAR)]
        shared = {kind for kind in of_cameras if of_cameras.count(kind) == len(of_cameras) > 1}
        with self._lock:
            self._doubts[stamp_to_ns(message.header.stamp)] = {
                name: text for name, text in doubts.items() if kinds[name] not in shared
            }


def _after(prefix: str, name: str) -> str:
    return name[len(prefix) :]


def _at_stamps(stored: Mapping[str, Mapping[int, ValueT]], stamps: Mapping[str, int]) -> dict[str, ValueT]:
    """Return what is stored by name at the stamp of each name; names without such a stamp are left out."""
    found = {}
    for name, by_stamp in stored.items():
        nearest = min(by_stamp, key=lambda stamp_ns: abs(stamp_ns - stamps.get(name, 0)))
        if abs(nearest - stamps.get(name, 0)) <= _AGE_ERROR_NS:
            found[name] = by_stamp[nearest]
    return found
