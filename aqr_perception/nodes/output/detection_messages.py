"""Result -> detection messages and markers, in the output frame."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA, Header
from vision_msgs.msg import BoundingBox3D, Detection3D, Detection3DArray, ObjectHypothesis, ObjectHypothesisWithPose
from visualization_msgs.msg import Marker, MarkerArray

from aqr_perception.frame import CLASSES, Detections, Frame, Result
from aqr_perception.geometry import quaternion_xyzw, rigid_transform
from aqr_perception.msg import FusedDetection, FusedDetectionArray, SensorState
from aqr_perception.nodes.input.frame_request import SensorUse
from aqr_perception.visualization.colours import modality_colour

_ARROW_SHAFT, _ARROW_HEAD, _ARROW_LENGTH = 0.08, 0.2, 0.3


def fused_detections(
    frame: Frame,
    result: Result,
    sensors: Sequence[SensorUse],
    to_output: NDArray[np.float64],
    header: Header,
) -> FusedDetectionArray:
    """Return the detections with their weights.

    Args:
        frame: that they were found in.
        sensors: every configured sensor.
        to_output: (4, 4), model frame -> the header's frame.
    """
    found = result.detections
    message = FusedDetectionArray(header=header, weights_source=result.weight_maps.source)
    message.sensors = [
        SensorState(name=use.name, used=use.used, age=float(use.age), reason=use.reason) for use in sensors
    ]
    message.camera_names = list(result.weight_maps.cameras)
    for index, pose in enumerate(_poses(found, to_output)):
        velocity = to_output[:3, :3] @ [*found.boxes[index, 7:9].astype(float), 0.0]
        message.detections.append(
            FusedDetection(
                class_name=CLASSES[found.labels[index]],
                score=float(found.scores[index]),
                pose=pose,
                size=_vector(found.boxes[index, 3:6]),
                velocity=_vector(velocity),
                lidar_weight=float(found.lidar_weight[index]),
                camera_weight=float(found.camera_weight[index]),
                camera_weights=found.camera_weights[index].astype(float).tolist(),
            )
        )
    return message


def detections_3d(result: Result, to_output: NDArray[np.float64], header: Header) -> Detection3DArray:
    """Return the detections as vision_msgs/Detection3DArray."""
    found = result.detections
    message = Detection3DArray(header=header)
    for index, pose in enumerate(_poses(found, to_output)):
        hypothesis = ObjectHypothesis(class_id=CLASSES[found.labels[index]], score=float(found.scores[index]))
        detection = Detection3D(header=header, bbox=BoundingBox3D(center=pose, size=_vector(found.boxes[index, 3:6])))
        detection.results.append(ObjectHypothesisWithPose(hypothesis=hypothesis))
        detection.results[0].pose.pose = pose
        message.detections.append(detection)
    return message


def markers(result: Result, to_output: NDArray[np.float64], header: Header) -> MarkerArray:
    """Return a box, a heading arrow and a label for each detection, after a marker that deletes the last frame's.

    The colour tells which modality carries the detection: see `visualization.colours.modality_colour`.
    """
    found = result.detections
    message = MarkerArray(markers=[Marker(header=header, action=Marker.DELETEALL)])
    for index, pose in enumerate(_poses(found, to_output)):
        length, width, height = found.boxes[index, 3:6].astype(float)
        colour = modality_colour(found.lidar_weight[index], found.camera_weight[index])
        marker = partial(_marker, header, index, colour)
        box = marker("boxes", Marker.CUBE, 0.35, Vector3(x=length, y=width, z=height), pose)
        arrow = marker("headings", Marker.ARROW, 0.9, Vector3(x=_ARROW_SHAFT, y=_ARROW_HEAD, z=_ARROW_LENGTH), pose)
        arrow.points = [Point(), Point(x=length / 2 + 0.5)]
        text_pose = Pose(position=Point(x=pose.position.x, y=pose.position.y, z=pose.position.z + height / 2 + 0.5))
        label = marker("labels", Marker.TEXT_VIEW_FACING, 1.0, Vector3(z=0.6), text_pose)
        weights = f"L {found.lidar_weight[index]:.2f} C {found.camera_weight[index]:.2f}"
        label.text = f"{CLASSES[found.labels[index]]} {found.scores[index]:.2f}\n{weights}"
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


def _poses(found: Detections, to_output: NDArray[np.float64]) -> list[Pose]:
    poses = []
    for box in found.boxes.astype(np.float64):
        yaw = box[6] / 2
        pose = to_output @ rigid_transform(box[:3], [0.0, 0.0, math.sin(yaw), math.cos(yaw)])
        x, y, z, w = quaternion_xyzw(pose)
        position = Point(x=pose[0, 3], y=pose[1, 3], z=pose[2, 3])
        poses.append(Pose(position=position, orientation=Quaternion(x=x, y=y, z=z, w=w)))
    return poses


def _vector(values: NDArray) -> Vector3:
    x, y, z = (float(value) for value in values)
    return Vector3(x=x, y=y, z=z)
