# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The recorder keeps what the perception node publishes, signed weights included."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from aqr_perception.msg import FrameTiming, FusedDetection, FusedDetectionArray, SensorState
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Pose, Vector3
from rclpy.node import Node
from std_msgs.msg import Header

from aqr_perception.demo.live.recorder import OutputRecorder
from aqr_perception.demo.recording import BEV, FrameRecord
from aqr_perception.frame import CameraView, DetectionQueries, Detections, Frame, Result, WeightMaps
from aqr_perception.nodes.output.query_messages import query_cloud
from aqr_perception.nodes.output.weight_messages import raw_image
from aqr_perception.nodes.stamps import ns_to_stamp


class StandInNode:
    """A node whose subscriptions are callbacks by topic."""

    def __init__(self) -> None:
        self.receive: dict[str, Callable[[Any], None]] = {}

    def create_subscription(self, kind: type, topic: str, callback: Callable[[Any], None], depth: int) -> None:
        self.receive[topic] = callback


def recorded(weight: float, lidar_map: np.ndarray, camera_map: np.ndarray) -> FrameRecord:
    """Return the record of one frame with one detection and two maps."""
    node = StandInNode()
    recorder = OutputRecorder(cast(Node, node), ["front"])
    header = Header(stamp=ns_to_stamp(1_500_000_000))
    found = FusedDetection(
        class_name="car", score=0.9, pose=Pose(), size=Vector3(x=4.0, y=2.0, z=1.5), lidar_weight=weight,
        camera_weight=0.5, camera_weights=[weight],
    )  # fmt: skip
    node.receive["/aqr_perception/detections"](
        FusedDetectionArray(
            header=header,
            sensors=[SensorState(name="lidar", used=True), SensorState(name="front", used=True, age=0.02)],
            camera_names=["front"],
            detections=[found],
        )
    )
    # A camera's map has the stamp of its image.
    of_image = Header(stamp=ns_to_stamp(1_480_000_000))
    for name, values, stamped in ((BEV, lidar_map, header), ("front", camera_map, of_image)):
        node.receive[f"/aqr_perception/weights/{name}/raw"](raw_image(values, stamped))
    (frame,) = recorder.recording(trained=True).frames
    return frame


ONES = np.ones((3, 4), np.float32)


def test_signed_weights_and_maps_are_recorded_with_their_sign() -> None:
    frame = recorded(-0.25, -ONES, 0.5 * ONES)
    assert frame.detections.lidar_weight[0] == frame.detections.camera_weights[0, 0] == -0.25
    assert frame.map_means == {BEV: -1.0, "front": 0.5}
    assert frame.negative_maps and frame.signed


def test_a_map_with_one_negative_cell_shows_that_weights_are_signed() -> None:
    values = ONES.copy()
    values[1, 2] = -0.1
    for maps in ((values, ONES), (ONES, values)):
        assert recorded(0.5, *maps).signed
    assert not recorded(0.5, ONES, ONES).signed


def test_queries_are_recorded_with_their_attention_and_pixels() -> None:
    node = StandInNode()
    recorder = OutputRecorder(cast(Node, node), ["front"])
    header = Header(stamp=ns_to_stamp(1_500_000_000))
    node.receive["/aqr_perception/detections"](
        FusedDetectionArray(
            header=header,
            sensors=[SensorState(name="lidar", used=True), SensorState(name="front", used=True, age=0.02)],
            camera_names=["front"],
            detections=[FusedDetection(class_name="car", camera_weights=[0.5])] * 2,
        )
    )
    points = np.array([[10.0, 1, 0], [-10, 2, 0]], np.float32)
    shares = np.array([[0.7, 0.3], [1.0, 0.0]], np.float32)
    ahead = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    intrinsics = np.array([[50.0, 0, 50], [0, 50, 25], [0, 0, 1]])
    view = CameraView("front", np.zeros((50, 100, 3), np.uint8), intrinsics, ahead)
    empty = np.zeros((0,), np.float32)
    none = Detections(np.zeros((0, 9), np.float32), empty, np.zeros(0, np.int64), empty, empty, empty[:, None])
    maps = WeightMaps(None, (-1, -1, 1, 1), {}, "router")
    result = Result(none, maps, queries=DetectionQueries(points, shares))
    node.receive["/aqr_perception/queries"](query_cloud(Frame(0, None, (view,)), result, header))
    (frame,) = recorder.recording(trained=True).frames
    assert frame.queries is not None and set(frame.queries.attention) == {"lidar", "front"}
    np.testing.assert_array_equal(frame.queries.points, points)
    np.testing.assert_array_equal(frame.queries.attention["front"], shares[:, 1])
    np.testing.assert_allclose(frame.queries.pixels["front"], [[45.0, 25.0], [np.nan, np.nan]])


def test_a_frame_is_finished_when_its_timing_arrives() -> None:
    node = StandInNode()
    recorder = OutputRecorder(cast(Node, node), [])
    header = Header(stamp=ns_to_stamp(1_500_000_000))
    node.receive["/aqr_perception/detections"](FusedDetectionArray(header=header))
    assert not recorder.has_finished_near(1_500_000_000, 20_000_000), "its pictures are still being drawn"
    node.receive["/aqr_perception/timing"](FrameTiming(header=header, stages=["image"], milliseconds=[3.0]))
    assert recorder.has_finished_near(1_510_000_000, 20_000_000) and not recorder.has_finished_near(1_510_000_000, 0)


def status(name: str, message: str = "used") -> DiagnosticStatus:
    level = DiagnosticStatus.OK if message == "used" else DiagnosticStatus.WARN
    return DiagnosticStatus(name=f"aqr_perception: sensor {name}", level=level, message=message)


def test_doubts_of_one_sensor_are_recorded_and_those_of_all_cameras_are_the_playbacks() -> None:
    for rear, expected in (("used", {"front": "black"}), ("slow: 3 Hz", {})):
        node = StandInNode()
        recorder = OutputRecorder(cast(Node, node), ["front", "back"])
        node.receive["/aqr_perception/detections"](
            FusedDetectionArray(
                header=Header(stamp=ns_to_stamp(1_500_000_000)),
                sensors=[SensorState(name=name, used=True) for name in ("lidar", "front", "back")],
            )
        )
        front = "black" if rear == "used" else "slow: 4 Hz"
        report = DiagnosticArray(header=Header(stamp=ns_to_stamp(1_900_000_000)))
        report.status = [status("lidar"), status("front", front), status("back", rear)]
        node.receive["/diagnostics"](report)
        (frame,) = recorder.recording(trained=True).frames
        assert frame.doubts == expected
