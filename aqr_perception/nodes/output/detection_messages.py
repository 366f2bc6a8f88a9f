# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Conversion of detections to messages and RViz markers in the output frame.

Messages of one kind are shallow copies of an empty one: rclpy's constructors make all the fields, also those that are
then set, and take most of the time. The copies share the fields that stay empty.
"""

import array
from collections.abc import Sequence
from copy import copy

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseWithCovariance, Quaternion, Vector3
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA, Header
from vision_msgs.msg import BoundingBox3D, Detection3D, Detection3DArray, ObjectHypothesis, ObjectHypothesisWithPose
from visualization_msgs.msg import Marker, MarkerArray

from aqr_perception.frame import Detections, Result
from aqr_perception.msg import FusedDetection, FusedDetectionArray, SensorState
from aqr_perception.nodes.input.frame_request import SensorUse
from aqr_perception.nodes.output.box_geometry import poses, vectors
from aqr_perception.nodes.stamps import stamp_to_ns
from aqr_perception.stage_clock import measured
from aqr_perception.visualization.colours import modality_colour

_ARROW_SHAFT, _ARROW_HEAD, _ARROW_LENGTH = 0.08, 0.2, 0.3
_LETTER_HEIGHT = 0.6


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
    empty = FusedDetection()
    columns = zip(
        _class_names(detections),
        detections.scores.tolist(),
        poses(detections.boxes, to_output),
        vectors(detections.boxes[:, 3:6]),
        vectors(velocities),
        detections.lidar_weight.tolist(),
        detections.camera_weight.tolist(),
        detections.camera_weights.tolist(),
        strict=True,
    )
    for name, score, pose, size, velocity, lidar_weight, camera_weight, camera_weights in columns:
        found = copy(empty)
        found.class_name, found.score = name, score
        found.pose, found.size, found.velocity = pose, size, velocity
        found.lidar_weight, found.camera_weight = lidar_weight, camera_weight
        found.camera_weights = array.array("f", camera_weights)
        message.detections.append(found)
    return message


@measured("messages")
def detections_3d(
    result: Result, to_output: NDArray[np.float64], header: Header, tracks: NDArray[np.int64] | None = None
) -> Detection3DArray:
    """Return the detections as vision_msgs/Detection3DArray.

    Equal ids mean the same object in any two messages (vision_msgs/Detection3D). So the id is that of the detection's
    track, or else one that never comes again: the stamp in nanoseconds and the detection's place, ``<stamp>-<place>``.

    Args:
        to_output: (4, 4), model frame -> the header's frame.
        tracks: (N,) identity of each detection's track, 0 for those without; None: objects are not followed.
    """
    detections = result.detections
    stamp_ns = stamp_to_ns(header.stamp)
    followed = np.zeros(len(detections), np.int64) if tracks is None else tracks
    message = Detection3DArray(header=header)
    empty, empty_box = Detection3D(header=header), BoundingBox3D()
    empty_hypothesis, covariance = ObjectHypothesisWithPose(), PoseWithCovariance()
    columns = zip(
        _class_names(detections),
        detections.scores.tolist(),
        poses(detections.boxes, to_output),
        vectors(detections.boxes[:, 3:6]),
        followed.tolist(),
        strict=True,
    )
    for place, (name, score, pose, size, track) in enumerate(columns):
        hypothesis, box, found = copy(empty_hypothesis), copy(empty_box), copy(empty)
        hypothesis.hypothesis = ObjectHypothesis(class_id=name, score=score)
        hypothesis.pose = copy(covariance)
        hypothesis.pose.pose = pose
        box.center, box.size = pose, size
        found.bbox, found.results, found.id = box, [hypothesis], str(track) if track else f"{stamp_ns}-{place}"
        message.detections.append(found)
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
    empty_box = Marker(header=header, ns="boxes", type=Marker.CUBE, action=Marker.ADD)
    scale = Vector3(x=_ARROW_SHAFT, y=_ARROW_HEAD, z=_ARROW_LENGTH)
    empty_arrow = Marker(header=header, ns="headings", type=Marker.ARROW, action=Marker.ADD, scale=scale)
    empty_label = Marker(header=header, ns="labels", type=Marker.TEXT_VIEW_FACING, action=Marker.ADD)
    empty_label.scale = Vector3(z=_LETTER_HEIGHT)
    start, upright = Point(), Quaternion()
    columns = zip(
        _class_names(detections),
        detections.scores.tolist(),
        poses(detections.boxes, to_output),
        vectors(detections.boxes[:, 3:6]),
        detections.lidar_weight.tolist(),
        detections.camera_weight.tolist(),
        strict=True,
    )
    for index, (name, score, pose, size, lidar_weight, camera_weight) in enumerate(columns):
        box, arrow, label = copy(empty_box), copy(empty_arrow), copy(empty_label)
        box.id = arrow.id = label.id = index
        red, green, blue = (level / 255 for level in modality_colour(lidar_weight, camera_weight))
        for marker, alpha in ((box, 0.35), (arrow, 0.9), (label, 1.0)):
            marker.color = ColorRGBA(r=red, g=green, b=blue, a=alpha)
        box.pose = arrow.pose = pose
        box.scale = size
        arrow.points = [start, Point(x=size.x / 2 + 0.5)]
        at = pose.position
        label.pose = Pose(position=Point(x=at.x, y=at.y, z=at.z + size.z / 2 + 0.5), orientation=upright)
        label.text = f"{name} {score:.2f}\nL {lidar_weight:{number}} C {camera_weight:{number}}"
        message.markers += [box, arrow, label]
    return message


def _class_names(detections: Detections) -> list[str]:
    return [detections.classes[label] for label in detections.labels.tolist()]
