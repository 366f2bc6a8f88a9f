"""The interface packages, generated and serialised."""

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here", exc_type=ImportError)
vision_msgs = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not built or installed")
tf2_msgs = pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not built or installed")
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402


def test_detections_survive_the_wire():
    car = vision_msgs.Detection3D(id="7", bbox=vision_msgs.BoundingBox3D())
    car.bbox.size.x = 4.5
    car.results = [vision_msgs.ObjectHypothesisWithPose()]
    car.results[0].hypothesis = vision_msgs.ObjectHypothesis(class_id="car", score=0.9)
    car.results[0].pose.pose.position.x = 12.0
    array = vision_msgs.Detection3DArray(detections=[car])
    assert deserialize_message(serialize_message(array), vision_msgs.Detection3DArray) == array


def test_rotated_boxes_on_images_have_their_center_as_position_and_angle():
    box = vision_msgs.BoundingBox2D(size_x=3.0, size_y=2.0)
    box.center.position = vision_msgs.Point2D(x=10.0, y=20.0)
    box.center.theta = 0.5
    array = vision_msgs.BoundingBox2DArray(boxes=[box])
    assert deserialize_message(serialize_message(array), vision_msgs.BoundingBox2DArray) == array


def test_lookup_errors_have_the_numbers_of_tf2():
    names = ["NO", "LOOKUP", "CONNECTIVITY", "EXTRAPOLATION", "INVALID_ARGUMENT", "TIMEOUT", "TRANSFORM"]
    assert [getattr(tf2_msgs.TF2Error, f"{name}_ERROR") for name in names] == list(range(7))


def test_lookups_can_be_asked_for_and_answered():
    actions = pytest.importorskip("tf2_msgs.action")
    services = pytest.importorskip("tf2_msgs.srv")
    goal = actions.LookupTransform.Goal(target_frame="map", source_frame="lidar", advanced=True, fixed_frame="odom")
    assert deserialize_message(serialize_message(goal), actions.LookupTransform.Goal) == goal
    assert actions.LookupTransform.Result().error.error == tf2_msgs.TF2Error.NO_ERROR
    assert services.FrameGraph.Response(frame_yaml="{}").frame_yaml == "{}"
