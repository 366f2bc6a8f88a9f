"""Conversion of detections to messages and RViz markers in the output frame."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA, Header
from tf_transformations import quaternion_from_euler, quaternion_from_matrix, quaternion_multiply
from vision_msgs.msg import BoundingBox3D, Detection3D, Detection3DArray, ObjectHypothesis, ObjectHypothesisWithPose
from visualization_msgs.msg import Marker, MarkerArray

from aqr_perception.frame import Detections, Result
from aqr_perception.geometry import transform_points
from aqr_perception.msg import FusedDetection, FusedDetectionArray, SensorState
from aqr_perception.nodes.input.frame_request import SensorUse
from aqr_perception.nodes.stage_clock import measured
from aqr_perception.visualization.colours import modality_colour

_ARROW_SHAFT, _ARROW_HEAD, _ARROW_LENGTH = 0.08, 0.2, 0.3


@measured("messages")
def fused_detections(
    result: Result,
    sensors: Sequence[SensorUse],
    to_output: NDArray[np.float64],
    header: Header,
) -> FusedDetectionArray:
    """Return the detections with their sensor weights.

    Args:
        sensors: every configured sensor, used or not.
        to_output: (4, 4), model frame -> the header's frame.
    """
    detections = result.detections
    message = FusedDetectionArray(header=header, weights_source=result.weight_maps.source)
    message.sensors = [
        SensorState(name=use.name, used=use.used, age=float(use.age), reason=use.reason) for use in sensors
    ]
    message.camera_names = list(result.weight_maps.cameras)
    velocities = np.pad(detections.boxes[:, 7:9], ((0, 0), (0, 1))) @ to_output[:3, :3].T
    for index, pose in enumerate(_poses(detections, to_output)):
        message.detections.append(
            FusedDetection(
                class_name=detections.classes[detections.labels[index]],
                score=float(detections.scores[index]),
                pose=pose,
                size=_vector(detections.boxes[index, 3:6]),
                velocity=_vector(velocities[index]),
                lidar_weight=float(detections.lidar_weight[index]),
                camera_weight=float(detections.camera_weight[index]),
                camera_weights=detections.camera_weights[index].astype(float).tolist(),
            )
        )
    return message


@measured("messages")
def detections_3d(result: Result, to_output: NDArray[np.float64], header: Header) -> Detection3DArray:
    """Return the detections as vision_msgs/Detection3DArray."""
    detections = result.detections
    message = Detection3DArray(header=header)
    for index, pose in enumerate(_poses(detections, to_output)):
        hypothesis = ObjectHypothesisWithPose(
            hypothesis=ObjectHypothesis(
                class_id=detections.classes[detections.labels[index]], score=float(detections.scores[index])
            )
        )
        hypothesis.pose.pose = pose
        box = BoundingBox3D(center=pose, size=_vector(detections.boxes[index, 3:6]))
        message.detections.append(Detection3D(header=header, bbox=box, results=[hypothesis]))
    return message


@measured("messages")
def markers(result: Result, to_output: NDArray[np.float64], header: Header) -> MarkerArray:
    """Return a box, a heading arrow and a label for each detection.

    The first marker deletes the markers of the previous frame. The colour shows which modality supports the detection;
    see `visualization.colours.modality_colour`. The label has class, score and both weights, with a sign if weights may
    be negative.
    """
    detections = result.detections
    number = "+.2f" if result.weight_maps.signed else ".2f"
    message = MarkerArray(markers=[Marker(header=header, action=Marker.DELETEALL)])
    for index, pose in enumerate(_poses(detections, to_output)):
        length, width, height = detections.boxes[index, 3:6].astype(float)
        lidar_weight, camera_weight = detections.lidar_weight[index], detections.camera_weight[index]
        marker = partial(_marker, header, index, modality_colour(lidar_weight, camera_weight))
        box = marker("boxes", Marker.CUBE, 0.35, Vector3(x=length, y=width, z=height), pose)
        arrow = marker("headings", Marker.ARROW, 0.9, Vector3(x=_ARROW_SHAFT, y=_ARROW_HEAD, z=_ARROW_LENGTH), pose)
        arrow.points = [Point(), Point(x=length / 2 + 0.5)]
        text_pose = Pose(position=Point(x=pose.position.x, y=pose.position.y, z=pose.position.z + height / 2 + 0.5))
        label = marker("labels", Marker.TEXT_VIEW_FACING, 1.0, Vector3(z=0.6), text_pose)
        name, score = detections.classes[detections.labels[index]], detections.scores[index]
        label.text = f"{name} {score:.2f}\nL {lidar_weight:{number}} C {camera_weight:{number}}"
        message.markers += [box, arrow, label]
    return message


def _marker(
    header: Header,
    index: int,
    colour: tuple[int, int, int],
    namespace: str,
    kind: int,
    alpha: float,
    scale: Vector3,
    pose: Pose,
) -> Marker:
    marker = Marker(header=header, ns=namespace, id=index, type=kind, action=Marker.ADD, pose=pose, scale=scale)
    red, green, blue = (level / 255 for level in colour)
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=alpha)
    return marker


def _poses(detections: Detections, to_output: NDArray[np.float64]) -> list[Pose]:
    """Return the poses of the boxes in the output frame: centre, and orientation with +x along the length."""
    boxes = detections.boxes.astype(np.float64)
    centres = transform_points(to_output, boxes).tolist()
    # A product of quaternions per box is ten times as fast as the decomposition of a matrix per box.
    rotation = quaternion_from_matrix(to_output)
    orientations = [quaternion_multiply(rotation, quaternion_from_euler(0.0, 0.0, yaw)) for yaw in boxes[:, 6]]
    return [
        Pose(position=Point(x=x, y=y, z=z), orientation=_quaternion(orientation))
        for (x, y, z), orientation in zip(centres, orientations, strict=True)
    ]


def _quaternion(xyzw: Sequence[float]) -> Quaternion:
    x, y, z, w = (float(value) for value in xyzw)
    return Quaternion(x=x, y=y, z=z, w=w)


def _vector(values: NDArray[np.floating]) -> Vector3:
    x, y, z = values.tolist()
    return Vector3(x=x, y=y, z=z)
