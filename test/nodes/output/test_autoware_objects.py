# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Detections as Autoware's message, field by field."""

import math
import sys
import time
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from aqr_perception.frame import CLASSES, Detections, Frame, Result, WeightMaps
from aqr_perception.geometry import rigid_transform
from aqr_perception.nodes.output.autoware_objects import AutowareObjects
from aqr_perception.nodes.output.publishers import Publishers
from aqr_perception.options import OptionError

HEADER = Header(frame_id="base_link")
ABSENT = (
    "needs the message package: ros_from_pip builds it, ROS 2 has it as ros-<distribution>-autoware-perception-msgs"
)


def detections(boxes: list[list[float]], labels: list[int], classes: tuple[str, ...] = CLASSES) -> Detections:
    count = len(boxes)
    scores = np.linspace(0.75, 0.5, count, dtype=np.float32)
    weights = np.zeros(count, np.float32)
    nothing = np.zeros((count, 0), np.float32)
    return Detections(np.array(boxes, np.float32), scores, np.array(labels), weights, weights, nothing, classes)


@pytest.fixture
def kinds() -> Any:
    return pytest.importorskip("autoware_perception_msgs.msg", reason=ABSENT)


def test_an_object_has_pose_size_class_and_score_of_its_detection(kinds: Any) -> None:
    to_output = rigid_transform([1.0, 2.0, 3.0], [0, 0, math.sin(0.2), math.cos(0.2)])
    box = [10.0, 0.0, 1.0, 4.5, 1.75, 1.5, 0.6, 3.0, 0.0]
    message = AutowareObjects(print).message(detections([box], [0]), to_output, HEADER)
    assert type(message) is kinds.DetectedObjects and message.header == HEADER
    (found,) = message.objects
    assert found.existence_probability == 0.75
    (kind,) = found.classification
    assert (kind.label, kind.probability) == (kinds.ObjectClassification.CAR, 1.0)
    pose = found.kinematics.pose_with_covariance.pose
    expected = to_output @ [10.0, 0.0, 1.0, 1.0]
    np.testing.assert_allclose([pose.position.x, pose.position.y, pose.position.z], expected[:3], atol=1e-6)
    assert 2 * math.atan2(pose.orientation.z, pose.orientation.w) == pytest.approx(0.6 + 0.4)
    assert found.kinematics.orientation_availability == kinds.DetectedObjectKinematics.AVAILABLE
    assert not found.kinematics.has_position_covariance and not found.kinematics.has_twist_covariance
    assert not np.any(found.kinematics.pose_with_covariance.covariance)
    size = found.shape.dimensions
    assert (found.shape.type, size.x, size.y, size.z) == (kinds.Shape.BOUNDING_BOX, 4.5, 1.75, 1.5)
    assert not found.shape.footprint.points
    assert deserialize_message(serialize_message(message), kinds.DetectedObjects) == message


@pytest.mark.parametrize("turn", [0.0, 0.9, 3.0])
def test_the_twist_is_along_the_heading_in_any_output_frame(kinds: Any, turn: float) -> None:
    to_output = rigid_transform([0, 0, 0], [0, 0, math.sin(turn / 2), math.cos(turn / 2)])
    yaw, speed, slip = 2.0, 8.0, -0.5
    vx, vy = (speed * math.cos(yaw) - slip * math.sin(yaw), speed * math.sin(yaw) + slip * math.cos(yaw))
    boxes = [[5.0, 5.0, 0, 4, 2, 1.5, yaw, vx, vy], [9.0, 5.0, 0, 4, 2, 1.5, yaw, math.nan, vy]]
    moving, unknown = AutowareObjects(print).message(detections(boxes, [0, 0]), to_output, HEADER).objects
    twist = moving.kinematics.twist_with_covariance.twist
    assert moving.kinematics.has_twist
    assert (twist.linear.x, twist.linear.y) == (pytest.approx(speed, abs=1e-5), pytest.approx(slip, abs=1e-5))
    assert (twist.linear.z, twist.angular.z) == (0.0, 0.0)
    assert not unknown.kinematics.has_twist
    assert unknown.kinematics.twist_with_covariance.twist.linear.x == 0.0


def test_every_class_has_the_label_of_its_name_and_others_are_said_once(kinds: Any) -> None:
    said: list[str] = []
    maker = AutowareObjects(said.append)
    box = [5.0, 5.0, 0, 4, 2, 1.5, 0, 0, 0]
    several = detections([box] * len(CLASSES), list(range(len(CLASSES))))
    labels = {}
    for _ in range(2):
        message = maker.message(several, np.eye(4), HEADER)
        labels = dict(zip(CLASSES, (found.classification[0].label for found in message.objects), strict=True))
    kind = kinds.ObjectClassification
    same = ("car", "truck", "bus", "trailer", "motorcycle", "bicycle", "pedestrian")
    assert {name: labels[name] for name in same} == {name: getattr(kind, name.upper()) for name in same}
    assert labels["construction_vehicle"] == kind.TRUCK
    assert labels["barrier"] == labels["traffic_cone"] == kind.UNKNOWN
    (sentence,) = said
    assert all(part in sentence for part in ("construction_vehicle as TRUCK", "barrier as UNKNOWN", "traffic_cone"))
    assert "pedestrian" not in sentence


def test_own_classes_have_the_labels_that_autoware_has(kinds: Any) -> None:
    said: list[str] = []
    own = detections([[5.0, 5.0, 0, 4, 2, 1.5, 0, 0, 0]] * 3, [0, 1, 2], ("animal", "forklift", "slot_types"))
    message = AutowareObjects(said.append).message(own, np.eye(4), HEADER)
    kind = kinds.ObjectClassification
    labels = [found.classification[0].label for found in message.objects]
    assert labels == [getattr(kind, "ANIMAL", kind.UNKNOWN), kind.UNKNOWN, kind.UNKNOWN]
    assert "forklift as UNKNOWN" in said[0]


def test_no_detection_gives_an_empty_message(kinds: Any) -> None:
    none = Detections(
        np.zeros((0, 9), np.float32), *[np.zeros(0)] * 2, np.zeros(0), np.zeros(0), np.zeros((0, 0))
    )  # fmt: skip
    assert AutowareObjects(print).message(none, np.eye(4), HEADER).objects == []


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "autoware_perception_msgs", None)
    monkeypatch.setitem(sys.modules, "autoware_perception_msgs.msg", None)
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    with pytest.raises(OptionError) as error:
        AutowareObjects(print)
    for part in ("autoware_objects is true", "autoware_perception_msgs", "ros-jazzy-autoware-perception-msgs", "false"):
        assert part in str(error.value)


def test_objects_arrive_over_dds(kinds: Any) -> None:
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    context = rclpy.Context()
    rclpy.init(context=context)
    talker = rclpy.create_node("talker", namespace="autoware_test", context=context)
    hearer = rclpy.create_node("hearer", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(hearer)
    heard: list[Any] = []
    try:
        hearer.create_subscription(kinds.DetectedObjects, "/autoware_test/talker/objects", heard.append, 5)
        outputs = Publishers(talker, (), 0.8, AutowareObjects(print))
        frame = Frame(1_500_000_000, np.zeros((0, 5), np.float32))
        maps = WeightMaps(None, (-1.0, -1.0, 1.0, 1.0), {}, "router")
        found = Result(detections([[10.0, 1.0, 0, 4, 2, 1.5, 0, 3, 0]], [8]), maps)
        end = time.monotonic() + 60.0
        while not heard and time.monotonic() < end:  # until both have found each other
            outputs.publish(frame, found, [], np.eye(4), "base_link", {}, None)
            executor.spin_once(timeout_sec=0.2)
        outputs.destroy()
    finally:
        executor.shutdown()
        talker.destroy_node()
        hearer.destroy_node()
        rclpy.shutdown(context=context)
    assert heard, "no message within 60 s"
    assert heard[0].header.frame_id == "base_link" and heard[0].header.stamp.sec == 1
    (person,) = heard[0].objects
    assert person.classification[0].label == kinds.ObjectClassification.PEDESTRIAN
    assert person.kinematics.twist_with_covariance.twist.linear.x == 3.0
