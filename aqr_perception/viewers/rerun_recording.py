# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Frames as entities of Rerun: https://rerun.io, `rerun-sdk`, tested with 0.41.

Entities: ``world`` is the frame fixed to the world (or the vehicle's, where its motion is unknown), ``world/vehicle``
the frame of the boxes with points, boxes and cameras in it; ``bev``, ``weights/...`` and ``status`` stand beside it.
Each frame is at its ROS time on the timeline ``ros_time``, and at its number on ``frame``.
"""

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import rerun as rr
from numpy.typing import NDArray

from aqr_perception.frame import Detections
from aqr_perception.viewers.shown_frame import ObjectWeights, ShownCamera, ShownFrame
from aqr_perception.visualization.colours import CAMERA_COLOUR, LIDAR_COLOUR, modality_colour

if TYPE_CHECKING:
    from rerun import RecordingStream

TIMELINE, FRAME_TIMELINE = "ros_time", "frame"
WORLD, VEHICLE, BEV, STATUS = "world", "world/vehicle", "bev", "status"
BY_SENSOR, BY_CAMERA, BY_OBJECT = "weights/by_sensor", "weights/by_camera", "weights/by_object"

_POINT_COLOUR = (190, 190, 200)
_PATH_FRAMES = 300
_MOST_LABELS = 25
"""Detections whose labels are shown; with more, labels cover each other, and appear at the pointer only."""
_IMAGE_DISTANCE = 4.0
"""Distance of the pictures from their cameras in the 3D view, in metres."""


class RerunRecording:
    """Recording that takes frames one by one.

    Args:
        stream: receives the entities; its timelines of logging are turned off.
    """

    def __init__(self, stream: "RecordingStream") -> None:
        self._stream = stream
        stream.set_log_time_enabled(False)
        stream.set_log_tick_enabled(False)
        self.frames = 0
        self._path: deque[NDArray[np.float64]] = deque(maxlen=_PATH_FRAMES)
        self._shown: set[str] = set()
        self._lines: set[str] = set()
        stream.log(WORLD, rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)

    def add(self, shown: ShownFrame) -> None:
        """Log a frame; of what an earlier frame had and this one lacks, nothing stays visible."""
        self._stream.set_time(TIMELINE, timestamp=np.datetime64(shown.stamp_ns, "ns"))
        self._stream.set_time(FRAME_TIMELINE, sequence=self.frames)
        entities = dict(self._world(shown))
        if shown.bev is not None:
            entities[BEV] = [_picture(shown.bev)]
        for path in sorted(self._shown - set(entities)):
            self._stream.log(path, rr.Clear(recursive=False))
        for path, archetypes in entities.items():
            self._stream.log(path, *archetypes)
        self._shown = set(entities)
        self._weights(shown)
        self._stream.log(STATUS, rr.TextDocument(_status(shown, self.frames), media_type=rr.MediaType.MARKDOWN))
        self.frames += 1

    def _world(self, shown: ShownFrame) -> Mapping[str, list[Any]]:
        entities: dict[str, list[Any]] = {}
        to_fixed = shown.to_fixed
        entities[VEHICLE] = [_transform(np.eye(4) if to_fixed is None else to_fixed), rr.TransformAxes3D(2.0)]
        if to_fixed is not None:
            self._path.append(to_fixed[:3, 3])
            if len(self._path) > 1:
                entities[f"{WORLD}/path"] = [rr.LineStrips3D([np.stack(self._path)], colors=_POINT_COLOUR)]
        else:
            self._path.clear()
        if shown.points is not None:
            entities[f"{VEHICLE}/points"] = [
                rr.Points3D(shown.points, colors=_POINT_COLOUR, radii=rr.Radius.ui_points(1.2))
            ]
        entities |= _boxes(shown)
        for name, camera in shown.cameras.items():
            entities |= _camera(f"{VEHICLE}/cameras/{_part(name)}", camera)
        for name, transform in shown.axes.items():
            entities[f"{VEHICLE}/frames/{_part(name)}"] = [_transform(transform), rr.TransformAxes3D(0.7)]
        return entities

    def _weights(self, shown: ShownFrame) -> None:
        """Log the weights as series: means over the frame's detections, and those of each object."""
        detections = shown.detections
        self._scalar(f"{BY_SENSOR}/lidar", _mean(detections.lidar_weight), "LiDAR", LIDAR_COLOUR)
        self._scalar(f"{BY_SENSOR}/cameras", _mean(detections.camera_weight), "cameras", CAMERA_COLOUR)
        for index, name in enumerate(shown.camera_names):
            self._scalar(f"{BY_CAMERA}/{_part(name)}", _mean(detections.camera_weights[:, index]), name)
        for name in shown.unused:
            path = f"{BY_CAMERA}/{_part(name)}"
            if path in self._lines:  # a gap, in place of a line to the camera's next frame
                self._stream.log(path, rr.Scalars(np.nan))
        for identity, weights in shown.objects.items():
            self._object(identity, weights)

    def _object(self, identity: int, weights: ObjectWeights) -> None:
        path, name = f"{BY_OBJECT}/{identity}", f"{weights.class_name} {identity}"
        self._scalar(f"{path}/lidar", weights.lidar, f"{name}: LiDAR", LIDAR_COLOUR)
        self._scalar(f"{path}/camera", weights.camera, f"{name}: cameras", CAMERA_COLOUR)

    def _scalar(self, path: str, value: float, name: str, colour: tuple[int, int, int] | None = None) -> None:
        if path not in self._lines:
            self._lines.add(path)
            self._stream.log(path, rr.SeriesLines(names=name, colors=colour), static=True)
        self._stream.log(path, rr.Scalars(value))


def _boxes(shown: ShownFrame) -> Mapping[str, list[Any]]:
    """Return the boxes with labels and headings, coloured by the modality that supports each."""
    found = shown.detections
    if not len(found):
        return {}
    boxes = found.boxes.astype(np.float64)
    quaternions = shown.quaternions
    if quaternions is None:
        half = boxes[:, 6] / 2
        quaternions = np.stack([np.zeros_like(half), np.zeros_like(half), np.sin(half), np.cos(half)], axis=1)
    colours = [modality_colour(*weights) for weights in zip(found.lidar_weight, found.camera_weight, strict=True)]
    solid = rr.Boxes3D(
        centers=boxes[:, :3],
        sizes=boxes[:, 3:6],
        quaternions=quaternions,
        colors=colours,
        labels=_labels(found),
        show_labels=len(found) <= _MOST_LABELS,
    )
    lines = np.stack([boxes[:, :3], boxes[:, :3] + _forward(quaternions) * (boxes[:, 3:4] / 2 + 0.5)], axis=1)
    headings = rr.LineStrips3D(list(lines), colors=colours)
    return {f"{VEHICLE}/boxes": [solid], f"{VEHICLE}/headings": [headings]}


def _labels(found: Detections) -> list[str]:
    columns = zip(found.labels, found.scores, found.lidar_weight, found.camera_weight, strict=True)
    return [
        f"{found.classes[label]} {score:.2f}  L {lidar:.2f} C {camera:.2f}" for label, score, lidar, camera in columns
    ]


def _forward(quaternions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N, 3), the x axes of orientations x, y, z, w."""
    x, y, z, w = quaternions.T
    return np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)], axis=1)


def _camera(path: str, camera: ShownCamera) -> dict[str, list[Any]]:
    """Return the picture, in the 3D view too if the camera's place is known."""
    if camera.intrinsics is None or camera.to_boxes is None:
        return {path: [_picture(camera.jpeg)]}
    lens = rr.Pinhole(
        image_from_camera=camera.intrinsics,
        resolution=camera.size,
        camera_xyz=rr.ViewCoordinates.RDF,
        image_plane_distance=_IMAGE_DISTANCE,
    )
    return {path: [_transform(camera.to_boxes), lens, _picture(camera.jpeg)]}


def _picture(data: bytes) -> Any:
    return rr.EncodedImage(contents=data, media_type="image/jpeg")


def _transform(matrix: NDArray[np.float64]) -> Any:
    return rr.Transform3D(translation=matrix[:3, 3], mat3x3=matrix[:3, :3])


def _mean(weights: NDArray[np.float32]) -> float:
    """Return the mean; NaN, a gap in the plot, without detections."""
    return float(weights.mean()) if len(weights) else float("nan")


def _part(name: str) -> str:
    """Return a name as one part of an entity's path."""
    part: str = rr.escape_entity_path_part(name)
    return part


def _status(shown: ShownFrame, number: int) -> str:
    lines = [
        f"**Frame {number}**, {len(shown.detections)} detections in `{shown.frame_id}`",
        "",
        "Boxes: orange where mostly the LiDAR supports the detection, blue where mostly the cameras do, in between "
        "where both do, grey where neither does. Labels: class, score, weight of the LiDAR (L) and of the cameras (C).",
    ]
    if shown.weights_source:
        lines.append(f"\nWeights of: {shown.weights_source}")
    if shown.unused:
        lines += ["", "Not used:", *(f"- {name}: {reason}" for name, reason in shown.unused.items())]
    return "\n".join(lines)
