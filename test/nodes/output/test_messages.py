# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Messages made from results hold the same boxes, weights and pixels."""

import array
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose
from std_msgs.msg import Header
from tf_transformations import quaternion_from_euler, quaternion_from_matrix, quaternion_multiply
from visualization_msgs.msg import Marker

from aqr_perception.frame import CLASSES, Detections, Result, WeightMaps
from aqr_perception.geometry import rigid_transform, transform_points
from aqr_perception.models.config.presets import load_preset
from aqr_perception.nodes.input.frame_request import SensorUse
from aqr_perception.nodes.output import detection_messages, weight_messages
from aqr_perception.visualization.colours import CAMERA_COLOUR

HEADER = Header(frame_id="base_link")


def result(boxes: np.ndarray) -> Result:
    count = len(boxes)
    detections = Detections(
        boxes.astype(np.float32),
        np.linspace(0.9, 0.1, count, dtype=np.float32),
        np.arange(count) % len(CLASSES),
        np.full(count, 0.75, np.float32),
        np.full(count, 0.25, np.float32),
        np.full((count, 2), 0.2, np.float32),
    )
    return Result(detections, WeightMaps(None, (-1, -1, 1, 1), {}, "router"))


def pose_matrix(pose: Pose) -> np.ndarray:
    p, q = pose.position, pose.orientation
    return rigid_transform([p.x, p.y, p.z], [q.x, q.y, q.z, q.w])


@given(st.floats(-3.1, 3.1), st.floats(-50, 50), st.floats(-3.1, 3.1))
@settings(max_examples=30, deadline=None)
def test_boxes_and_velocities_are_transformed_to_the_output_frame(turn: float, shift: float, yaw: float) -> None:
    to_output = rigid_transform([shift, -2.0, 0.5], [0, 0, math.sin(turn / 2), math.cos(turn / 2)])
    box = np.array([[3.0, 4.0, 1.0, 4.5, 1.9, 1.6, yaw, 2.0, -1.0]])
    for array_of in (
        detection_messages.fused_detections(result(box), [], to_output, HEADER),
        detection_messages.detections_3d(result(box), to_output, HEADER),
    ):
        detection = array_of.detections[0]
        pose = detection.pose if hasattr(detection, "pose") else detection.bbox.center
        size = detection.size if hasattr(detection, "size") else detection.bbox.size
        expected = transform_points(to_output, box[:, :3])[0]
        np.testing.assert_allclose(pose_matrix(pose)[:3, 3], expected, atol=1e-5)
        heading = pose_matrix(pose)[:3, :3] @ [1, 0, 0]
        np.testing.assert_allclose(heading[:2], [math.cos(yaw + turn), math.sin(yaw + turn)], atol=1e-5)
        np.testing.assert_allclose([size.x, size.y, size.z], [4.5, 1.9, 1.6], rtol=1e-6)
    velocity = detection_messages.fused_detections(result(box), [], to_output, HEADER).detections[0].velocity
    np.testing.assert_allclose([velocity.x, velocity.y], (to_output[:3, :3] @ [2, -1, 0])[:2], atol=1e-6)


def test_ids_are_those_of_the_tracks_or_come_only_once() -> None:
    boxes = np.tile([3.0, 4.0, 1.0, 4.5, 1.9, 1.6, 0.0, 2.0, -1.0], (3, 1))
    ids = set()
    for second in (1, 2):
        header = Header(frame_id="base_link", stamp=Time(sec=second, nanosec=5))
        found = detection_messages.detections_3d(result(boxes), np.eye(4), header).detections
        ids |= {detection.id for detection in found}
        assert f"{second}000000005-0" in ids
    assert len(ids) == 6, "another frame's objects may be others"
    followed = detection_messages.detections_3d(result(boxes), np.eye(4), header, np.array([7, 0, 12]))
    assert [detection.id for detection in followed.detections] == ["7", "2000000005-1", "12"]


def test_orientations_are_the_products_of_tfs_quaternions() -> None:
    random = np.random.default_rng(0)
    boxes = random.uniform(-30, 30, (40, 9))
    boxes[:, 6] = np.linspace(-np.pi, np.pi, 40)
    rotation = random.normal(size=4)
    to_output = rigid_transform([1.0, 2.0, 3.0], rotation / np.linalg.norm(rotation))
    expected = [
        quaternion_multiply(quaternion_from_matrix(to_output), quaternion_from_euler(0.0, 0.0, yaw))
        for yaw in boxes.astype(np.float32).astype(np.float64)[:, 6]
    ]
    for pose, (x, y, z, w) in zip(poses(detection_messages.detections_3d, boxes, to_output), expected, strict=True):
        q = pose.orientation
        np.testing.assert_allclose((q.x, q.y, q.z, q.w), (x, y, z, w), atol=1e-15)


def poses(make: Callable[..., Any], boxes: np.ndarray, to_output: np.ndarray) -> list[Pose]:
    return [found.bbox.center for found in make(result(boxes), to_output, HEADER).detections]


def test_messages_of_one_frame_and_of_two_frames_share_nothing_that_differs() -> None:
    boxes = np.random.default_rng(0).uniform(1, 30, (3, 9))
    one, other = (detection_messages.markers(result(given), np.eye(4), HEADER).markers for given in (boxes, boxes[:1]))
    assert [marker.id for marker in one[1:]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [marker.ns for marker in one[1:4]] == ["boxes", "headings", "labels"]
    assert len({marker.text for marker in one[3::3]}) == 3 and not any(marker.text for marker in one[1::3])
    np.testing.assert_allclose([marker.scale.x for marker in one[1::3]], boxes[:, 3], rtol=1e-6)
    assert all(len(marker.points) == 2 for marker in one[2::3]) and not one[1].points and not one[3].points
    assert other[1:] == one[1:4]
    found = detection_messages.fused_detections(result(boxes), [], np.eye(4), HEADER).detections
    found[0].camera_weights[0] = 9.0
    assert found[1].camera_weights[0] == pytest.approx(0.2)
    found = detection_messages.detections_3d(result(boxes), np.eye(4), HEADER).detections
    np.testing.assert_allclose([one.results[0].hypothesis.score for one in found], [0.9, 0.5, 0.1], rtol=1e-6)
    assert [one.results[0].pose.pose for one in found] == [one.bbox.center for one in found]
    assert not found[0].results[0].pose.covariance.any()


def test_detections_report_sensors_and_weights() -> None:
    sensors = [SensorUse("lidar", True, 0.0), SensorUse("front", False, math.nan, "no data")]
    message = detection_messages.fused_detections(result(np.ones((2, 9))), sensors, np.eye(4), HEADER)
    assert [(sensor.name, sensor.used, sensor.reason) for sensor in message.sensors] == [
        ("lidar", True, ""),
        ("front", False, "no data"),
    ]
    assert math.isnan(message.sensors[1].age) and message.weights_source == "router"
    detection = message.detections[0]
    assert (detection.class_name, detection.lidar_weight, detection.camera_weight) == ("car", 0.75, 0.25)
    np.testing.assert_allclose(detection.camera_weights, [0.2, 0.2])


def test_markers_start_by_deleting_the_previous_ones() -> None:
    markers = detection_messages.markers(result(np.ones((2, 9))), np.eye(4), HEADER).markers
    assert markers[0].action == Marker.DELETEALL
    assert [marker.type for marker in markers[1:4]] == [Marker.CUBE, Marker.ARROW, Marker.TEXT_VIEW_FACING]
    assert len(markers) == 7 and len({(marker.ns, marker.id) for marker in markers[1:]}) == 6
    assert "car" in markers[3].text
    assert len(detection_messages.markers(result(np.zeros((0, 9))), np.eye(4), HEADER).markers) == 1


def test_raw_images_hold_the_values_of_the_map() -> None:
    values = np.random.default_rng(0).uniform(0, 1.5, (5, 7)).astype(np.float32)
    message = weight_messages.raw_image(values, HEADER)
    assert isinstance(message.data, array.array) and message.encoding == "32FC1" and message.step == 28
    np.testing.assert_array_equal(np.frombuffer(message.data, "<f4").reshape(5, 7), values)


def test_colour_images_hold_the_pixels_of_the_picture() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    message = weight_messages.colour_image(picture, HEADER)
    assert (message.encoding, message.width, message.height, message.step) == ("bgr8", 6, 4, 18)
    np.testing.assert_array_equal(np.frombuffer(message.data, np.uint8).reshape(4, 6, 3), picture)


def test_grid_cells_are_placed_in_metres_and_cells_without_weight_are_unknown() -> None:
    values = np.zeros((10, 10), np.float32)
    values[2, 7] = 1.5
    values[3, 3] = 0.75
    to_output = rigid_transform([5.0, 0.0, 1.0], [0, 0, math.sin(0.5), math.cos(0.5)])
    grid = weight_messages.occupancy_grid(values, (-50.0, -50.0, 50.0, 50.0), to_output, HEADER)
    cells = np.array(grid.data).reshape(10, 10)
    assert cells[2, 7] == 100 and cells[3, 3] == 50 and (cells == -1).sum() == 98
    assert grid.info.resolution == pytest.approx(10.0)
    centre = pose_matrix(grid.info.origin) @ [7.5 * 10, 2.5 * 10, 0, 1]
    np.testing.assert_allclose(centre[:3], transform_points(to_output, np.array([[25.0, -25.0, 0.0]]))[0], atol=1e-6)


MAPS = arrays(
    np.float32,
    (4, 6),
    elements=st.floats(-1.5, 1.5, width=32) | st.sampled_from([0.0, -1.5, 1.5, 70.0, -70.0, math.nan, math.inf]),
)


@given(MAPS, st.booleans())
@settings(max_examples=60, deadline=None)
def test_grids_of_any_map_have_values_that_rviz_knows(values: np.ndarray, signed: bool) -> None:
    grid = weight_messages.occupancy_grid(values, (-3.0, -2.0, 3.0, 2.0), np.eye(4), HEADER, signed)
    cells = np.array(grid.data).reshape(values.shape)
    assert (((cells >= 0) & (cells <= 100)) | (cells == -1)).all()
    unknown = ~(np.abs(values) > 0) if signed else ~(values > 0)
    np.testing.assert_array_equal(cells == -1, unknown)


@given(MAPS)
@settings(max_examples=60, deadline=None)
def test_signed_grids_are_symmetric_around_neutral_and_keep_the_order_of_the_weights(values: np.ndarray) -> None:
    values = np.nan_to_num(values, nan=0.0, posinf=1.5, neginf=-1.5)
    cells, opposite = (
        np.array(weight_messages.occupancy_grid(array, (-3.0, -2.0, 3.0, 2.0), np.eye(4), HEADER, True).data)
        for array in (values, -values)
    )
    known = cells != -1
    weights = values.ravel()[known]
    assert (np.sign(cells[known] - 50) * np.sign(weights) >= 0).all()
    order = np.argsort(weights, kind="stable")
    assert (np.diff(cells[known][order]) >= 0).all()
    inner = np.abs(weights) < 1.4
    np.testing.assert_array_equal((cells + opposite)[known][inner], 100)


def test_signed_grids_run_from_blue_to_red_in_rviz() -> None:
    """RViz's costmap colours: 1 to 98 run from blue to red; 0 is invisible, 99 is cyan and 100 purple."""
    values = np.float32([[-1.5, -0.75, 0.0, 0.003, 0.75, 1.5]])
    grid = weight_messages.occupancy_grid(values, (-3.0, -0.5, 3.0, 0.5), np.eye(4), HEADER, True)
    assert list(grid.data) == [1, 25, -1, 50, 75, 98]


def test_raw_images_hold_signed_values_unchanged() -> None:
    values = np.random.default_rng(0).uniform(-1.5, 1.5, (5, 7)).astype(np.float32)
    message = weight_messages.raw_image(values, HEADER)
    np.testing.assert_array_equal(np.frombuffer(message.data, "<f4").reshape(5, 7), values)
    assert message.encoding == "32FC1" and (values < 0).any()


def test_signed_weights_reach_the_message_and_the_markers_label_with_their_sign() -> None:
    plain = result(np.ones((1, 9)))
    weights = {
        "lidar_weight": np.float32([-0.314]),
        "camera_weight": np.float32([0.82]),
        "camera_weights": np.float32([[-0.5, 0.82]]),
    }
    signed = dataclasses.replace(
        plain,
        detections=dataclasses.replace(plain.detections, **weights),
        weight_maps=dataclasses.replace(plain.weight_maps, signed=True),
    )
    found = detection_messages.fused_detections(signed, [], np.eye(4), HEADER).detections[0]
    np.testing.assert_allclose((found.lidar_weight, found.camera_weight), (-0.314, 0.82), atol=1e-6)
    np.testing.assert_allclose(found.camera_weights, [-0.5, 0.82], atol=1e-6)
    cube, _, label = detection_messages.markers(signed, np.eye(4), HEADER).markers[1:4]
    assert label.text == "car 0.90\nL -0.31 C +0.82"
    colour = np.rint([cube.color.r * 255, cube.color.g * 255, cube.color.b * 255]).astype(int)
    assert tuple(colour) == CAMERA_COLOUR, "a suppressed LiDAR supports nothing"
    unsigned = detection_messages.markers(plain, np.eye(4), HEADER).markers[3]
    assert unsigned.text == "car 0.90\nL 0.75 C 0.25"


@given(x=st.floats(-53.9, 48.3), y=st.floats(-53.9, 48.3))
@settings(max_examples=30, deadline=None)
def test_the_grid_cell_of_a_weight_is_at_its_position_where_the_features_end_before_the_range(
    x: float, y: float
) -> None:
    bev_range, edge = load_preset("cmt_voxel0100_r50_800x320").bev_range, 0.8
    values = np.zeros((128, 128), np.float32)
    values[int((y + 54) / edge), int((x + 54) / edge)] = 1.5
    grid = weight_messages.occupancy_grid(values, bev_range, np.eye(4), HEADER)
    assert grid.info.resolution == pytest.approx(edge)
    row, column = np.unravel_index(np.array(grid.data).argmax(), (grid.info.height, grid.info.width))
    centre = pose_matrix(grid.info.origin) @ [*((np.array([column, row]) + 0.5) * grid.info.resolution), 0, 1]
    assert np.abs(centre[:2] - (x, y)).max() <= edge / 2 + 1e-4


def test_cells_that_are_not_square_keep_their_area_in_the_grid() -> None:
    values = np.array([[1.5, 0.0], [0.0, 0.75], [0.0, 0.0]], np.float32)
    for turned in (False, True):
        map_, extent = (values.T, (3.0, 4.0)) if turned else (values, (4.0, 3.0))
        grid = weight_messages.occupancy_grid(map_, (-1.0, -2.0, extent[0] - 1, extent[1] - 2), np.eye(4), HEADER)
        assert grid.info.resolution == pytest.approx(1.0)
        assert (grid.info.width, grid.info.height) == extent
        cells = np.array(grid.data).reshape(grid.info.height, grid.info.width)
        expected = np.repeat([[100, -1], [-1, 50], [-1, -1]], 2, axis=1)
        np.testing.assert_array_equal(cells, expected.T if turned else expected)


def test_messages_and_markers_name_the_models_own_classes() -> None:
    plain = result(np.ones((2, 9)))
    own = dataclasses.replace(plain, detections=dataclasses.replace(plain.detections, classes=("crane", "forklift")))
    fused = detection_messages.fused_detections(own, [], np.eye(4), HEADER)
    assert [found.class_name for found in fused.detections] == ["crane", "forklift"]
    three_d = detection_messages.detections_3d(own, np.eye(4), HEADER)
    assert [found.results[0].hypothesis.class_id for found in three_d.detections] == ["crane", "forklift"]
    texts = [marker.text for marker in detection_messages.markers(own, np.eye(4), HEADER).markers if marker.text]
    assert [text.split()[0] for text in texts] == ["crane", "forklift"]
