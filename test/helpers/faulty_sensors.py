# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sensors that publish over DDS and can be broken at will, beside a node whose detector costs nothing."""

import array
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import rclpy
from aqr_perception.msg import FusedDetectionArray
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.publisher import PublisherEventCallbacks
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header
from tf2_ros.static_transform_broadcaster import StaticTransformBroadcaster

from aqr_perception.frame import Detections, Frame, Result, WeightMaps
from aqr_perception.nodes.perception_node import PerceptionNode
from helpers.sensor_messages import transform

PERIOD = 0.05
WIDTH, HEIGHT = 96, 64
RAW, JPEG = "left", "right"
TOPICS = {"lidar": "/points", RAW: f"/{RAW}/image_raw", JPEG: f"/{JPEG}/image_raw"}
KINDS = {"lidar": PointCloud2, RAW: Image, JPEG: CompressedImage}
Change = Callable[[Any], Any]


class CheapDetector:
    """A detector that sees one car."""

    image_size, sweeps, sweep_interval, classes, placement = (WIDTH, HEIGHT), 1, 0.0, ("car",), None
    uses_cameras = uses_lidar = has_router = True
    device = formats = weights = "none"
    seconds, failure = 0.0, ""
    """Time that a frame takes, and the text of the error that it ends with."""
    sees_the_car = True

    def __init__(self, *_: object) -> None:
        pass

    def try_out(self) -> None:
        pass

    def detect(self, frame: Frame, options: object) -> Result:
        time.sleep(CheapDetector.seconds)
        if CheapDetector.failure:
            raise ValueError(CheapDetector.failure)
        one, each = np.full(1, 0.9, np.float32), np.full((1, len(frame.cameras)), 0.5, np.float32)
        box = np.array([[10, 0, 0, 4, 2, 1.5, 0, 0, 0]], np.float32)
        seen = slice(0, int(CheapDetector.sees_the_car))
        labels = np.array([0])
        detections = Detections(box[seen], one[seen], labels[seen], one[seen], one[seen], each[seen], ("car",))
        return Result(detections, WeightMaps(None, (-50.0, -50.0, 50.0, 50.0), {}, "router"), {})


class FaultySensors:
    """A LiDAR, a camera with raw images, a camera with JPEGs, and a running node that uses them.

    Attributes:
        changes: what happens to a sensor's messages before they are sent; None is not sent.
        info_changes: the same for calibrations, by camera.
        send_no_infos: whether the publishers of calibration send nothing.
        refused: number of subscriptions that the publishers of calibration reported as incompatible.
        period: seconds between two messages of a sensor.
        node: the node, in an executor of its own.
    """

    def __init__(self, **parameters: Any) -> None:
        self._random = np.random.default_rng(0)
        self.changes: dict[str, Change] = {}
        self.info_changes: dict[str, Change] = {}
        self.period = dict.fromkeys(KINDS, PERIOD)
        self._due = dict.fromkeys(KINDS, 0.0)
        self.arrays: list[float] = []
        self.health: list[tuple[float, dict[str, DiagnosticStatus]]] = []
        values = {
            "cameras": [RAW, JPEG],
            "lidar_topic": TOPICS["lidar"],
            f"camera.{JPEG}.compressed": True,
            "sensor_reliability": "reliable",
            "output_frame": "base_link",
            **parameters,
        }
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        self.node = PerceptionNode(CheapDetector, parameter_overrides=overrides)
        self._own = rclpy.create_node("faulty_sensors")
        # A DDS participant has one type for each topic, so publishers of a wrong type belong to another one.
        self._other_context = rclpy.Context()
        self._other_context.init()
        self._other = rclpy.create_node("wrong_type", context=self._other_context)
        self._executor, self._node_executor = SingleThreadedExecutor(), SingleThreadedExecutor()
        self._executor.add_node(self._own)
        self._node_executor.add_node(self.node)
        self._broadcaster = StaticTransformBroadcaster(self._own)
        mounts = [transform("base_link", "lidar", np.eye(4))]
        optical = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # looks along x
        self._broadcaster.sendTransform([*mounts, *(transform("lidar", name, optical) for name in (RAW, JPEG))])
        self.publishers = {name: self.publisher(name) for name in KINDS}
        self._latched: list[Any] = []
        self.refused = 0
        self.send_no_infos = False
        self.restore_infos()
        self._own.create_subscription(FusedDetectionArray, "/aqr_perception/detections", self._on_array, 10)
        self._own.create_subscription(DiagnosticArray, "/diagnostics", self._on_health, 10)
        self._spinning = threading.Thread(target=self._node_executor.spin, daemon=True)
        self._spinning.start()

    def start(self) -> None:
        self.node.trigger_configure()
        self.node.trigger_activate()

    def close(self) -> None:
        self._node_executor.shutdown()
        self._spinning.join(5)
        self.node.close()
        self.node.destroy_node()
        self._executor.shutdown()
        self._own.destroy_node()
        self._other.destroy_node()
        self._other_context.shutdown()

    def restart_node(self) -> None:
        """Configure and activate the node anew, so that it has received nothing yet."""
        self.node.trigger_deactivate()
        self.node.trigger_cleanup()
        self.health.clear()
        self.start()

    def latch_infos(self) -> None:
        """Send each calibration once, latched, as a publisher of stored calibration does."""
        for publisher in self._latched:
            self._own.destroy_publisher(publisher)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._latched = [
            self._own.create_publisher(CameraInfo, f"/{name}/camera_info", latched) for name in (RAW, JPEG)
        ]
        for name, publisher in zip((RAW, JPEG), self._latched, strict=True):
            publisher.publish(_info(Header(frame_id=name)))

    def remove_infos(self) -> None:
        """Remove all publishers of calibration."""
        for publisher in (*self._infos.values(), *self._latched):
            self._own.destroy_publisher(publisher)
        self._infos, self._latched = {}, []

    def restore_infos(self) -> None:
        """Publish calibrations with each image; `refused` counts the requests that a publisher cannot serve."""
        events = PublisherEventCallbacks(incompatible_qos=self._on_refused, use_default_callbacks=False)
        self._infos = {
            name: self._own.create_publisher(CameraInfo, f"/{name}/camera_info", 5, event_callbacks=events)
            for name in (RAW, JPEG)
        }

    def _on_refused(self, event: Any) -> None:
        self.refused += event.total_count_change

    def listen(self, kind: type, topic: str) -> list[Any]:
        """Return a list to which a topic's messages are appended."""
        messages: list[Any] = []
        self._own.create_subscription(kind, topic, messages.append, 10)
        return messages

    def publisher(self, sensor: str, kind: type | None = None, reliable: bool = True) -> Any:
        """Return a publisher on a sensor's topic."""
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        profile = QoSProfile(depth=5, reliability=reliability)
        node = self._own if kind is None else self._other
        return node.create_publisher(kind or KINDS[sensor], TOPICS[sensor], profile)

    def remove_publisher(self, sensor: str) -> None:
        publisher = self.publishers.pop(sensor)
        (self._own if publisher.msg_type is KINDS[sensor] else self._other).destroy_publisher(publisher)

    def repair(self) -> None:
        """End all faults, so that a test that failed leaves none to the next one."""
        self.send_no_infos = False
        if not self._infos:
            self.restore_infos()
        for publisher in self._latched:
            self._own.destroy_publisher(publisher)
        self._latched = []
        self.changes, self.info_changes = {}, {}
        self.period = dict.fromkeys(KINDS, PERIOD)
        CheapDetector.seconds, CheapDetector.failure = 0.0, ""
        for sensor, kind in KINDS.items():
            held = self.publishers.get(sensor)
            if held is not None and (held.msg_type is not kind or held.qos_profile.reliability != 1):
                self.remove_publisher(sensor)
            if sensor not in self.publishers:
                self.publishers[sensor] = self.publisher(sensor)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Send and receive until a condition holds; return whether it does within some seconds."""
        end = time.monotonic() + seconds
        while not until():
            now = time.monotonic()
            if now > end:
                return False
            for sensor in KINDS:
                if now >= self._due[sensor]:
                    self._due[sensor] = max(self._due[sensor] + self.period[sensor], now - 0.01)
                    self._send(sensor)
            self._executor.spin_once(timeout_sec=0.005)
        return True

    def status(self, name: str) -> DiagnosticStatus:
        """Return the latest status of a subject, e.g. ``sensor lidar``."""
        unknown = DiagnosticStatus(level=DiagnosticStatus.STALE)
        return self.health[-1][1].get(name, unknown) if self.health else unknown

    def status_names(self) -> set[str]:
        return set(self.health[-1][1]) if self.health else set()

    def is_healthy(self) -> bool:
        used = [self.status(f"sensor {name}").message == "used" for name in KINDS]
        return all(used) and self.status("frames").level == DiagnosticStatus.OK

    def _send(self, sensor: str) -> None:
        stamp = self._own.get_clock().now().to_msg()
        header = Header(frame_id=sensor, stamp=stamp)
        message = self._cloud(header) if sensor == "lidar" else self._image(sensor, header)
        message = self.changes.get(sensor, lambda same: same)(message)
        if sensor != "lidar":
            info = self.info_changes.get(sensor, lambda same: same)(_info(header))
            if sensor in self._infos and not self.send_no_infos:
                self._infos[sensor].publish(info)
        if message is not None and sensor in self.publishers and self.publishers[sensor].msg_type is type(message):
            self.publishers[sensor].publish(message)

    def _cloud(self, header: Header) -> PointCloud2:
        points = self._random.uniform(-20, 20, (50, 4)).astype("<f4")
        points[:, 3] = np.abs(points[:, 3]) * 10
        fields = [PointField(name=name, offset=4 * i, datatype=7, count=1) for i, name in enumerate("xyzi")]
        message = PointCloud2(header=header, height=1, width=50, point_step=16, row_step=800, fields=fields)
        message.data = array.array("B", points.tobytes())
        return message

    def _image(self, sensor: str, header: Header) -> Image | CompressedImage:
        return image_message(sensor, self._random.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8), header)

    def _on_array(self, message: FusedDetectionArray) -> None:
        self.arrays.append(time.monotonic())

    def _on_health(self, message: DiagnosticArray) -> None:
        statuses = {status.name.removeprefix("aqr_perception: "): status for status in message.status}
        self.health.append((time.monotonic(), statuses))


@contextmanager
def running_sensors() -> Iterator[FaultySensors]:
    """Give sensors with a started node, in a context of rclpy of their own."""
    rclpy.init()
    sensors = FaultySensors()
    try:
        sensors.start()
        yield sensors
    finally:
        sensors.close()
        rclpy.try_shutdown()


def _info(header: Header) -> CameraInfo:
    return CameraInfo(header=header, width=WIDTH, height=HEIGHT, k=[90.0, 0, 48, 0, 90.0, 32, 0, 0, 1.0])


def image_message(sensor: str, picture: np.ndarray, header: Header) -> Image | CompressedImage:
    """Return a picture as the camera sends it."""
    if sensor == JPEG:
        jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
        return CompressedImage(header=header, format="jpeg", data=array.array("B", jpeg))
    message = Image(header=header, height=HEIGHT, width=WIDTH, step=3 * WIDTH, encoding="bgr8")
    message.data = array.array("B", picture.tobytes())
    return message
