"""The recorder keeps what the perception node publishes, signed weights included."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from aqr_perception.msg import FusedDetection, FusedDetectionArray, SensorState
from geometry_msgs.msg import Pose, Vector3
from rclpy.node import Node
from std_msgs.msg import Header

from aqr_perception.demo.live.recorder import OutputRecorder
from aqr_perception.demo.recording import BEV, FrameRecord
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
