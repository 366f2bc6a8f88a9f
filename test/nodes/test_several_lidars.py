# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The simulator's LiDAR split into three, in a running node over DDS: detections equal those of the joined sweep.

The world stands still while the vehicle moves, so one simulated sweep serves for all.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

import torch  # noqa: E402
from aqr_perception.msg import FusedDetectionArray  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import TransformStamped  # noqa: E402
from helpers.sensor_messages import sweep as sweep_message  # noqa: E402
from helpers.sensor_messages import transform, with_header  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from scipy.optimize import linear_sum_assignment  # noqa: E402
from sensor_msgs.msg import PointCloud2  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from tf2_ros.static_transform_broadcaster import StaticTransformBroadcaster  # noqa: E402

from aqr_perception.detector import Detector  # noqa: E402
from aqr_perception.frame import Frame  # noqa: E402
from aqr_perception.geometry import invert, rigid_transform, transform_points  # noqa: E402
from aqr_perception.nodes.perception_node import PerceptionNode  # noqa: E402
from aqr_perception.nodes.stamps import stamp_to_ns  # noqa: E402
from aqr_perception.options import DetectionOptions  # noqa: E402
from aqr_perception.simulator.drive import draw_drive  # noqa: E402

PERIOD_NS = 100_000_000
MODEL_FRAME = "lidar_link"
SCORE = 0.3


class Mount(NamedTuple):
    """One of the three LiDARs.

    Attributes:
        to_model: (4, 4), its frame -> `MODEL_FRAME`.
        delay_ns: how long before the first LiDAR it measures.
        scale: factor from the intensities that it sends to 0..255.
    """

    to_model: np.ndarray
    delay_ns: int = 0
    scale: float = 1.0


MOUNTS = {
    "lidar": Mount(rigid_transform([1.5, 0.0, -0.5], [0, 0, 0, 1])),
    "lidar_2": Mount(rigid_transform([-0.5, 0.7, 0.1], [0, 0.1, 0.6, 0.8]), 20_000_000, 0.5),
    "lidar_3": Mount(rigid_transform([-0.5, -0.7, 0.1], [0.05, 0, -0.6, 0.8]), 0, 255.0),
}
TOPICS = {name: f"/{name}/points" for name in MOUNTS}
Sent = dict[str, tuple[np.ndarray, int]]
"""Points (N, 4) in `MODEL_FRAME` at the time of measurement, and that time, by LiDAR."""


class ThreeLidars:
    """A simulated drive whose LiDAR is split by azimuth, and a node with the real detector.

    Attributes:
        changes: what happens to a LiDAR's sweeps before they are sent; None is not sent.
    """

    def __init__(self) -> None:
        self._drive = draw_drive(6, 20.0, sweeps=1)
        self._index, self._start_ns = 0, time.time_ns()
        sweep = self._drive.single_sweep(self._seconds(self._start_ns)).points
        self._world, self._intensities = transform_points(self._pose(self._start_ns), sweep), sweep[:, 3]
        self.detector = Detector("aqr_tiny", device="cpu", precision="fp32")
        self.detector.sweep_interval = 0.0  # the rounds are shorter than the model's interval
        self.changes: dict[str, Callable[[PointCloud2], PointCloud2 | None]] = {}
        values = {
            "cameras": [""],
            "lidar_topics": list(TOPICS.values()),
            **{f"lidar.{number}.intensity_scale": mount.scale for number, mount in enumerate(MOUNTS.values(), 1)},
            "model_frame": MODEL_FRAME,
            "fixed_frame": "odom",
            "sensor_reliability": "reliable",
            "score_threshold": SCORE,
            "max_sweeps": 2,
            # A loaded machine delivers late.
            "camera_wait": 1.0,
            "transform_wait": 2.0,
            "lidar_timeout": 2.0,
            "max_latency": 3600.0,
        }
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        self.node = PerceptionNode(lambda *_: self.detector, parameter_overrides=overrides)
        self._own = rclpy.create_node("three_lidars")
        self._executor, node_executor = SingleThreadedExecutor(), SingleThreadedExecutor()
        self._executor.add_node(self._own)
        node_executor.add_node(self.node)
        self._node_executor = node_executor
        profile = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self._publishers = {
            name: self._own.create_publisher(PointCloud2, topic, profile) for name, topic in TOPICS.items()
        }
        self._static = StaticTransformBroadcaster(self._own)
        self._moving = self._own.create_publisher(TFMessage, "/tf", 10)
        self._static.sendTransform([transform(MODEL_FRAME, name, mount.to_model) for name, mount in MOUNTS.items()])
        self.arrays: list[FusedDetectionArray] = []
        self.health: dict[str, DiagnosticStatus] = {}
        self._own.create_subscription(FusedDetectionArray, "/aqr_perception/detections", self.arrays.append, 10)
        self._own.create_subscription(DiagnosticArray, "/diagnostics", self._on_health, 10)
        self._spinning = threading.Thread(target=node_executor.spin, daemon=True)
        self._spinning.start()
        self.node.trigger_configure()
        self.node.trigger_activate()

    def close(self) -> None:
        self._node_executor.shutdown()
        self._spinning.join(10)
        self.node.close()
        self.node.destroy_node()
        self._executor.shutdown()
        self._own.destroy_node()

    def wait_for(self, holds: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"{what}; { ({name: s.message for name, s in self.health.items()}) }"
            self._executor.spin_once(timeout_sec=0.02)

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.02)

    def wait_until_connected(self) -> None:
        self.wait_for(lambda: all(one.get_subscription_count() for one in self._publishers.values()), "subscriptions")
        self.wait_for(lambda: bool(self.health), "diagnostics")

    def round(self) -> tuple[FusedDetectionArray, Sent]:
        """Let all LiDARs send once; return the frame's array and the sweeps before any change."""
        sent = self.send()
        stamp_ns = self.frame_ns("lidar")
        self.wait_for(lambda: bool(self.arrays_at(stamp_ns)), "an array")
        return self.arrays_at(stamp_ns)[0], sent

    def frame_ns(self, trigger: str) -> int:
        """Return the stamp of the latest frame if a LiDAR triggers it."""
        return self._start_ns + self._index * PERIOD_NS - MOUNTS[trigger].delay_ns

    def arrays_at(self, stamp_ns: int) -> list[FusedDetectionArray]:
        return [array for array in self.arrays if stamp_to_ns(array.header.stamp) == stamp_ns]

    def send(self) -> Sent:
        self._index += 1
        stamp_ns = self._start_ns + self._index * PERIOD_NS
        around = transform_points(invert(self._pose(stamp_ns)), self._world)
        sector = (np.arctan2(around[:, 1], around[:, 0]) + np.pi) // (2 * np.pi / 3)
        sent: Sent = {}
        times = {stamp_ns - mount.delay_ns for mount in MOUNTS.values()}
        self._moving.publish(TFMessage(transforms=[self._transform(one) for one in sorted(times)]))
        for number, (name, mount) in enumerate(MOUNTS.items()):
            own_ns, part = stamp_ns - mount.delay_ns, sector == number
            place = transform_points(invert(self._pose(own_ns) @ mount.to_model), self._world[part])
            records = np.c_[place, self._intensities[part] / mount.scale].astype(np.float32)
            # The reference starts from the same rounded numbers as the node.
            moved = np.c_[transform_points(mount.to_model, records), records[:, 3] * np.float32(mount.scale)]
            sent[name] = (moved, own_ns)
            message = with_header(sweep_message(records, own_ns), name, own_ns)
            changed = self.changes.get(name, lambda same: same)(message)
            if changed is not None:
                self._publishers[name].publish(changed)
        return sent

    def joined(self, sweeps: list[Sent], frame_ns: int, names: list[str]) -> np.ndarray:
        """Return the sweeps of some LiDARs as one point cloud (N, 5) in the model frame at a time."""
        parts = []
        for sent in sweeps:
            for name in names:
                points, own_ns = sent[name]
                motion = invert(self._pose(frame_ns)) @ self._pose(own_ns)
                age = np.full(len(points), (frame_ns - own_ns) / 1e9)
                parts.append(np.c_[transform_points(motion, points), points[:, 3], age].astype(np.float32))
        return np.concatenate(sorted(parts, key=lambda part: float(part[0, 4])))

    def detect(self, points: np.ndarray) -> np.ndarray:
        """Return what the detector finds in one point cloud, like `boxes_of`."""
        found = self.detector.detect(Frame(0, points, (), MODEL_FRAME), DetectionOptions(score_threshold=SCORE))
        return np.c_[found.detections.boxes[:, :3], found.detections.scores]

    def _seconds(self, stamp_ns: int) -> float:
        return 5.0 + (stamp_ns - self._start_ns) / 1e9

    def _pose(self, stamp_ns: int) -> np.ndarray:
        return self._drive.lidar_to_world(self._seconds(stamp_ns))

    def _transform(self, stamp_ns: int) -> TransformStamped:
        return transform("odom", MODEL_FRAME, self._pose(stamp_ns), stamp_ns)

    def _on_health(self, message: DiagnosticArray) -> None:
        self.health = {status.name.removeprefix("aqr_perception: "): status for status in message.status}


def boxes_of(array: FusedDetectionArray) -> np.ndarray:
    """Return the detections' x, y, z and score, (N, 4)."""
    found = [(one.pose.position, one.score) for one in array.detections]
    return np.array([[place.x, place.y, place.z, score] for place, score in found]).reshape(-1, 4)


def are_same(boxes: np.ndarray, others: np.ndarray, tolerance: float = 5e-3) -> bool:
    """Return whether each box has its own counterpart."""
    apart = np.abs(boxes[:, None] - others[None]).max(axis=-1)
    return len(boxes) == len(others) and bool((apart[linear_sum_assignment(apart)] <= tolerance).all())


def reasons(array: FusedDetectionArray) -> dict[str, str]:
    return {use.name: "used" if use.used else use.reason for use in array.sensors}


@pytest.fixture(scope="module")
def lidars() -> Iterator[ThreeLidars]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rclpy.init()
    rig = ThreeLidars()
    try:
        rig.wait_until_connected()
        yield rig
    finally:
        rig.close()
        rclpy.try_shutdown()
        torch.set_num_threads(threads)


ALL_USED = dict.fromkeys(MOUNTS, "used")


def test_detections_equal_those_of_the_joined_sweep(lidars: ThreeLidars) -> None:
    lidars.round()  # the first frame has no past sweep
    _, before = lidars.round()
    array, newest = lidars.round()
    assert reasons(array) == ALL_USED
    assert {use.name: pytest.approx(use.age) for use in array.sensors} == {
        "lidar": 0.0,
        "lidar_2": 0.02,
        "lidar_3": 0.0,
    }
    assert array.header.frame_id == MODEL_FRAME
    stamp_ns = stamp_to_ns(array.header.stamp)
    expected = lidars.detect(lidars.joined([newest, before], stamp_ns, list(MOUNTS)))
    assert len(expected) >= 5
    assert are_same(boxes_of(array), expected)
    alone = lidars.detect(lidars.joined([newest, before], stamp_ns, ["lidar"]))
    assert not are_same(alone, expected, tolerance=0.1), "the other LiDARs matter"


def without_x(message: PointCloud2) -> PointCloud2:
    message.fields = [field for field in message.fields if field.name != "x"]
    return message


def half_a_second_late(message: PointCloud2) -> PointCloud2:
    return with_header(message, message.header.frame_id, stamp_to_ns(message.header.stamp) - 5 * PERIOD_NS)


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (without_x, "point cloud without x", ("/lidar_2/points", "without x")),
        (lambda message: None, "too old", ("silent", "/lidar_2/points")),
        (half_a_second_late, "too old", ("too old",)),
    ],
    ids=["broken", "missing", "late"],
)
def test_a_lidar_that_fails_is_named_and_the_others_go_on(
    lidars: ThreeLidars, change: Any, reason: str, words: tuple[str, ...]
) -> None:
    lidars.changes = {"lidar_2": change}

    def named() -> bool:
        status = lidars.health["sensor lidar_2"]
        return status.level != DiagnosticStatus.OK and all(word in status.message for word in words)

    try:
        rounds = [lidars.round() for _ in range(3)]
        while not named():
            assert len(rounds) < 60, lidars.health["sensor lidar_2"].message
            rounds.append(lidars.round())
        array, newest = rounds[-1]
        assert reasons(array) == {**ALL_USED, "lidar_2": reason}
        expected = lidars.detect(
            lidars.joined([newest, rounds[-2][1]], stamp_to_ns(array.header.stamp), ["lidar", "lidar_3"])
        )
        assert are_same(boxes_of(array), expected)
        assert lidars.health["sensor lidar_3"].hardware_id == "/lidar_3/points"
    finally:
        lidars.changes = {}
    lidars.wait_for(lambda: reasons(lidars.round()[0]) == ALL_USED, "all LiDARs again")


def test_another_lidar_triggers_frames_while_the_first_is_missing(lidars: ThreeLidars) -> None:
    lidars.changes = {"lidar": lambda message: None}
    stamps: list[int] = []

    def triggered() -> list[FusedDetectionArray]:
        return [array for stamp_ns in stamps for array in lidars.arrays_at(stamp_ns)]

    def send() -> bool:
        lidars.send()
        stamps.append(lidars.frame_ns("lidar_2"))
        lidars.spin(0.4)
        return bool(triggered())

    try:
        lidars.wait_for(send, "an array with the stamp of the second LiDAR")
        assert reasons(triggered()[0]) == {**ALL_USED, "lidar": "too old"}
        silent = ("silent", "/lidar/points")
        lidars.wait_for(lambda: all(word in lidars.health["sensor lidar"].message for word in silent), "diagnostics")
    finally:
        lidars.changes = {}
    assert reasons(lidars.round()[0]) == ALL_USED


def test_lidars_are_switched_at_run_time(lidars: ThreeLidars) -> None:
    lidars.node.set_parameters([Parameter("lidar.3.enabled", value=False)])
    try:
        array, _ = lidars.round()
        assert reasons(array) == {**ALL_USED, "lidar_3": "disabled"}
        refused = lidars.node.set_parameters([Parameter("use_lidar", value=False)])[0]
        assert not refused.successful and "no sensor is enabled" in refused.reason
    finally:
        lidars.node.set_parameters([Parameter("lidar.3.enabled", value=True)])


def test_two_lidars_with_one_topic_after_remapping_are_refused(lidars: ThreeLidars) -> None:
    values = {"cameras": [""], "lidar_topics": ["/left/points", "left/points"]}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = PerceptionNode(lambda *_: lidars.detector, parameter_overrides=overrides, namespace="/")
    try:
        node.trigger_configure()
        report = node._report(time.monotonic())
        text = " ".join(status.message for status in report.status)
        assert "sensors lidar and lidar_2 both have the topic /left/points" in text
    finally:
        node.close()
        node.destroy_node()
