# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Conversion of tracks to messages and RViz markers in the output frame."""

from collections.abc import Mapping, Sequence

import numpy as np
from geometry_msgs.msg import Point, Pose, Vector3
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA, Header
from vision_msgs.msg import BoundingBox3D, Detection3D, Detection3DArray, ObjectHypothesis, ObjectHypothesisWithPose
from visualization_msgs.msg import Marker, MarkerArray

from aqr_perception.geometry import transform_points
from aqr_perception.msg import Track, TrackArray
from aqr_perception.nodes.output.box_geometry import poses, vectors
from aqr_perception.tracking.track_list import Tracks
from aqr_perception.visualization.colours import modality_colour

_TRAIL_WIDTH = 0.12
_SOLID, _FAINT = 0.35, 0.12
"""Opacity of detected and of predicted boxes."""


def track_array(tracks: Tracks, to_output: NDArray[np.float64], header: Header, tracking_frame: str) -> TrackArray:
    """Return the tracks with age, hits, velocity and sensor weights.

    Args:
        to_output: (4, 4), the tracks' frame -> the header's frame.
    """
    message = TrackArray(header=header, tracking_frame=tracking_frame)
    rotation = to_output[:3, :3]
    turned = np.pad(tracks.boxes[:, 7:9], ((0, 0), (0, 1))) @ rotation.T
    plane = (rotation[:, :2] @ rotation[:, :2].T).ravel()  # unit covariance in x and y of the tracks' frame
    sizes, velocities = vectors(tracks.boxes[:, 3:6]), vectors(turned)
    for index, pose in enumerate(poses(tracks.boxes, to_output)):
        message.tracks.append(
            Track(
                id=int(tracks.ids[index]),
                class_name=tracks.classes[tracks.labels[index]],
                score=float(tracks.scores[index]),
                age=float(tracks.ages[index]),
                hits=int(tracks.hits[index]),
                missed=int(tracks.missed[index]),
                predicted=bool(tracks.predicted[index]),
                pose=pose,
                size=sizes[index],
                velocity=velocities[index],
                velocity_covariance=plane * tracks.velocity_variance[index],
                lidar_weight=float(tracks.weights[index, 0]),
                camera_weight=float(tracks.weights[index, 1]),
            )
        )
    return message


def tracks_3d(tracks: Tracks, to_output: NDArray[np.float64], header: Header) -> Detection3DArray:
    """Return the tracks as vision_msgs/Detection3DArray, with their ids."""
    message = Detection3DArray(header=header)
    columns = zip(poses(tracks.boxes, to_output), vectors(tracks.boxes[:, 3:6]), strict=True)
    for index, (pose, size) in enumerate(columns):
        name, score = tracks.classes[tracks.labels[index]], float(tracks.scores[index])
        hypothesis = ObjectHypothesisWithPose(hypothesis=ObjectHypothesis(class_id=name, score=score))
        hypothesis.pose.pose = pose
        box = BoundingBox3D(center=pose, size=size)
        message.detections.append(Detection3D(header=header, bbox=box, results=[hypothesis], id=str(tracks.ids[index])))
    return message


def track_markers(
    tracks: Tracks,
    trails: Mapping[int, Sequence[NDArray[np.float64]]],
    to_output: NDArray[np.float64],
    header: Header,
) -> MarkerArray:
    """Return a box, a label and a trail for each track; the first marker deletes those of the previous frame.

    Colours as in `detection_messages.markers`, by the smoothed weights. Predicted boxes are faint, and their label ends
    in ``predicted``.

    Args:
        trails: id -> past (3,) positions in the tracks' frame, oldest first.
    """
    message = MarkerArray(markers=[Marker(header=header, action=Marker.DELETEALL)])
    columns = zip(tracks.ids.tolist(), poses(tracks.boxes, to_output), vectors(tracks.boxes[:, 3:6]), strict=True)
    for index, (track, pose, size) in enumerate(columns):
        red, green, blue = (level / 255 for level in modality_colour(*tracks.weights[index]))
        predicted = tracks.predicted[index]

        def marker(
            namespace: str,
            kind: int,
            alpha: float,
            scale: Vector3,
            place: Pose,
            track: int = track,
            colour: tuple[float, float, float] = (red, green, blue),
        ) -> Marker:
            shade = ColorRGBA(r=colour[0], g=colour[1], b=colour[2], a=alpha)
            number = track % 2**31  # Marker.id is int32
            made = Marker(header=header, ns=namespace, id=number, type=kind, action=Marker.ADD, pose=place, scale=scale)
            made.color = shade
            return made

        above = Point(x=pose.position.x, y=pose.position.y, z=pose.position.z + size.z / 2 + 0.5)
        label = marker("labels", Marker.TEXT_VIEW_FACING, 1.0, Vector3(z=0.6), Pose(position=above))
        ending = " predicted" if predicted else ""
        label.text = f"{tracks.classes[tracks.labels[index]]} {track}{ending}"
        message.markers += [marker("boxes", Marker.CUBE, _FAINT if predicted else _SOLID, size, pose), label]
        trail = trails.get(track, ())
        if len(trail) > 1:
            line = marker("trails", Marker.LINE_STRIP, 0.9, Vector3(x=_TRAIL_WIDTH), Pose())
            line.points = [_point(position) for position in transform_points(to_output, np.stack(trail))]
            message.markers.append(line)
    return message


def _point(position: NDArray[np.float64]) -> Point:
    return Point(x=float(position[0]), y=float(position[1]), z=float(position[2]))
