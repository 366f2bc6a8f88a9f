# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The generated interface packages, serialised."""

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here", exc_type=ImportError)
vision_msgs = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not built or installed")
tf2_msgs = pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not built or installed")
from geometry_msgs.msg import TransformStamped  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402


def test_detections_survive_the_wire():
    car = vision_msgs.Detection3D(id="7", bbox=vision_msgs.BoundingBox3D())
    car.bbox.size.x = 4.5
    car.results = [vision_msgs.ObjectHypothesisWithPose()]
    car.results[0].hypothesis = vision_msgs.ObjectHypothesis(class_id="car", score=0.9)
    car.results[0].pose.pose.position.x = 12.0
    array = vision_msgs.Detection3DArray(detections=[car])
    assert deserialize_message(serialize_message(array), vision_msgs.Detection3DArray) == array


def test_autowares_objects_survive_the_wire():
    kinds = pytest.importorskip("autoware_perception_msgs.msg", reason="the package is not built or installed")
    car = kinds.DetectedObject(existence_probability=0.5)
    car.classification = [kinds.ObjectClassification(label=kinds.ObjectClassification.CAR, probability=1.0)]
    car.kinematics.has_twist = True
    car.kinematics.orientation_availability = kinds.DetectedObjectKinematics.AVAILABLE
    car.shape.dimensions.x = 4.5
    objects = kinds.DetectedObjects(objects=[car])
    assert deserialize_message(serialize_message(objects), kinds.DetectedObjects) == objects


def test_transforms_survive_the_wire():
    message = tf2_msgs.TFMessage(transforms=[TransformStamped(child_frame_id="lidar")])
    assert deserialize_message(serialize_message(message), tf2_msgs.TFMessage) == message
