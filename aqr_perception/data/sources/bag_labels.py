# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Labelled objects of a bag: from messages on a topic, or from a JSON beside the bag."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.poses import stamp_to_ns
from aqr_perception.bags.reader import BagReader

_CUBE, _ADD = 1, 0
_MARKER_KINDS = {0: "ARROW", 1: "CUBE", 2: "SPHERE", 3: "CYLINDER", 6: "CUBE_LIST", 9: "TEXT_VIEW_FACING"}
_LARGEST_SIDE = 200.0
"""Metres; trains are labelled by the carriage."""
_JSON_FORMAT = (
    '{"frames": [{"stamp_ns": 1700000000000000000, "frame_id": "lidar", "objects": [{"class": "car", '
    '"box": [x, y, z, length, width, height, yaw], "velocity": [vx, vy], "track": 7}]}]}'
)


@dataclass(frozen=True)
class LabelledObject:
    """One object.

    Attributes:
        name: its class in the data.
        pose: (4, 4), box -> the labels' frame; x along the heading, z up.
        size: length, width, height in metres.
        velocity: (2,) in m/s, along the axes of the labels' frame; NaN if unknown.
        track: identity over time; -1 if unknown.
        seen: whether a sensor saw it; None if the data does not say.
    """

    name: str
    pose: NDArray[np.float64]
    size: tuple[float, float, float]
    velocity: tuple[float, float]
    track: int
    seen: bool | None


@dataclass(frozen=True)
class LabelledMoment:
    """All objects at one time, in one TF frame.

    Attributes:
        place: where the record stands, for errors.
    """

    stamp_ns: int
    frame_id: str
    objects: tuple[LabelledObject, ...]
    place: str


Problem = Callable[[BagError], None]
"""Receives a record that is left out; raises it unless bad records may be skipped."""


def labels_from_topic(bag: BagReader, topic: str, problem: Problem) -> list[LabelledMoment]:
    """Return the labels of a topic's messages, in order of time.

    Args:
        problem: receives each bad record.

    Raises:
        BagError: the topic's type has no objects.
    """
    kinds = {entry.name: entry.type for entry in bag.topics}
    read = LABEL_TYPES.get(kinds[topic])
    if read is None:
        raise BagError(f"{bag.path}: {topic}: found messages of type {kinds[topic]}, needed {', '.join(LABEL_TYPES)}")
    moments: list[LabelledMoment] = []
    for message in bag.messages((topic,)):
        place = f"{bag.path}: {topic} at {message.stamp_ns / 1e9:.6f} s"
        try:
            moments += read(message.decode(), place, problem)
        except BagError as error:
            problem(error)
    return sorted(moments, key=lambda moment: moment.stamp_ns)


def labels_from_json(path: Path, problem: Problem) -> list[LabelledMoment]:
    """Return the labels of a JSON file, in order of time; its format is in the errors and in the training guide.

    Raises:
        BagError: the file is not JSON, or has no list of frames.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BagError(f"{path}: cannot be read ({error}), needed JSON: {_JSON_FORMAT}") from error
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list):
        raise BagError(f"{path}: found {str(content)[:60]}, needed {_JSON_FORMAT}")
    moments: list[LabelledMoment] = []
    for number, frame in enumerate(frames):
        place = f"{path}: frames[{number}]"
        try:
            moments.append(_json_moment(frame, place, problem))
        except BagError as error:
            problem(error)
    return sorted(moments, key=lambda moment: moment.stamp_ns)


def _json_moment(frame: Any, place: str, problem: Problem) -> LabelledMoment:
    if not isinstance(frame, dict) or not isinstance(frame.get("objects"), list):
        raise BagError(f"{place}: found {str(frame)[:60]}, needed {_JSON_FORMAT}")
    stamp_ns, frame_id = frame.get("stamp_ns"), frame.get("frame_id")
    if not isinstance(stamp_ns, int) or isinstance(stamp_ns, bool) or stamp_ns <= 0:
        raise BagError(f"{place}: stamp_ns: found {stamp_ns!r}, needed whole nanoseconds, as in the sensors' headers")
    if not isinstance(frame_id, str) or not frame_id:
        raise BagError(f"{place}: frame_id: found {frame_id!r}, needed the TF frame of the boxes")
    objects = []
    for number, entry in enumerate(frame["objects"]):
        where = f"{place}: objects[{number}]"
        try:
            objects.append(_json_object(entry, where))
        except BagError as error:
            problem(error)
    return LabelledMoment(stamp_ns, frame_id, tuple(objects), place)


def _json_object(entry: Any, where: str) -> LabelledObject:
    if not isinstance(entry, dict) or not isinstance(entry.get("class"), str):
        raise BagError(f"{where}: found {str(entry)[:60]}, needed {_JSON_FORMAT}")
    box = _numbers(entry.get("box"), (7,), f"{where}: box", "x, y, z, length, width, height, yaw")
    velocity = entry.get("velocity")
    vx, vy = (math.nan, math.nan) if velocity is None else _numbers(velocity, (2,), f"{where}: velocity", "vx, vy")
    track = entry.get("track", -1)
    if not isinstance(track, int):
        raise BagError(f"{where}: track: found {track!r}, needed a whole number")
    rotation = (0.0, 0.0, math.sin(box[6] / 2), math.cos(box[6] / 2))
    return _object(where, entry["class"], box[:3], rotation, box[3:6], (vx, vy), track, None)


def _numbers(value: Any, shape: tuple[int], where: str, needed: str) -> list[float]:
    good = isinstance(value, list) and len(value) == shape[0]
    if not good or not all(isinstance(number, (int, float)) and math.isfinite(number) for number in value):
        raise BagError(f"{where}: found {str(value)[:80]}, needed {shape[0]} finite numbers: {needed}")
    return [float(number) for number in value]


def _fused(message: Any, place: str, problem: Problem) -> Iterator[LabelledMoment]:
    def read(entry: Any, where: str) -> LabelledObject:
        velocity = (entry.velocity.x, entry.velocity.y)
        place, turn = _place(entry.pose), _turn(entry.pose)
        return _object(where, entry.class_name, place, turn, _sides(entry.size), velocity, -1, entry.score > 0)

    yield _moment(message.header, message.detections, read, place, problem)


def _vision(message: Any, place: str, problem: Problem) -> Iterator[LabelledMoment]:
    def read(entry: Any, where: str) -> LabelledObject:
        best = max(entry.results, key=lambda result: result.hypothesis.score, default=None)
        if best is None or not best.hypothesis.class_id:
            found = "no result" if best is None else "an empty class_id"
            raise BagError(f"{where}: found {found}, needed results with hypothesis.class_id")
        track = _track(entry.id)
        unknown = (math.nan, math.nan)
        pose = entry.bbox.center
        sides, name = _sides(entry.bbox.size), str(best.hypothesis.class_id)
        return _object(where, name, _place(pose), _turn(pose), sides, unknown, track, None)

    frames = {entry.header.frame_id for entry in message.detections} - {"", message.header.frame_id}
    if message.header.frame_id and frames:
        raise BagError(f"{place}: found detections in {', '.join(sorted(frames))}, needed the array's frame for all")
    header = message.header
    if not header.frame_id and message.detections:
        header = message.detections[0].header
    yield _moment(header, message.detections, read, place, problem)


def _markers(message: Any, place: str, problem: Problem) -> Iterator[LabelledMoment]:
    def read(entry: Any, where: str) -> LabelledObject:
        unknown = (math.nan, math.nan)
        name = entry.ns.rpartition("/")[2] or entry.text
        if not name:
            raise BagError(f"{where}: found an empty namespace, needed the class in ns")
        pose = entry.pose
        return _object(where, name, _place(pose), _turn(pose), _sides(entry.scale), unknown, entry.id, None)

    added = [marker for marker in message.markers if marker.action == _ADD]
    cubes = [marker for marker in added if marker.type == _CUBE]
    if added and not cubes:
        kinds = sorted({_MARKER_KINDS.get(marker.type, str(marker.type)) for marker in added})
        raise BagError(f"{place}: found markers of type {', '.join(kinds)}, needed CUBE, one for each object")
    if not cubes:
        return  # only deletions, which say nothing about the objects at this time
    if len({(marker.header.frame_id, stamp_to_ns(marker.header.stamp)) for marker in cubes}) > 1:
        raise BagError(f"{place}: found markers with different headers, needed one frame and stamp for all")
    yield _moment(cubes[0].header, cubes, read, place, problem)


def _moment(
    header: Any, entries: Sequence[Any], read: Callable[[Any, str], LabelledObject], place: str, problem: Problem
) -> LabelledMoment:
    stamp_ns = stamp_to_ns(header.stamp)
    if stamp_ns <= 0:
        raise BagError(f"{place}: found the stamp {stamp_ns} in the header, needed the sweep's")
    if not header.frame_id and entries:
        raise BagError(f"{place}: found an empty frame_id, needed the TF frame of the boxes")
    objects = []
    for number, entry in enumerate(entries):
        try:
            objects.append(read(entry, f"{place}: object {number}"))
        except BagError as error:
            problem(error)
    return LabelledMoment(stamp_ns, header.frame_id, tuple(objects), place)


def _object(
    where: str,
    name: str,
    place: Sequence[float],
    turn: Sequence[float],
    size: Sequence[float],
    velocity: tuple[float, float],
    track: int,
    seen: bool | None,
) -> LabelledObject:
    """Return a checked object."""
    if not np.isfinite([*place, *size, *turn]).all():
        raise BagError(f"{where} ({name}): found position {place}, size {size}, rotation {turn}, needed finite numbers")
    if not all(0 < side <= _LARGEST_SIDE for side in size):
        needed = f"length, width and height above 0 and at most {_LARGEST_SIDE:g} m"
        raise BagError(f"{where} ({name}): found the size {[float(side) for side in size]}, needed {needed}")
    if not 0.5 < float(np.linalg.norm(turn)) < 2.0:
        raise BagError(f"{where} ({name}): found the orientation {[float(t) for t in turn]}, needed a unit quaternion")
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat(np.asarray(turn, np.float64)).as_matrix()
    pose[:3, 3] = place
    length, width, height = (float(side) for side in size)
    return LabelledObject(name, pose, (length, width, height), velocity, track, seen)


def _place(pose: Any) -> list[float]:
    return [float(pose.position.x), float(pose.position.y), float(pose.position.z)]


def _turn(pose: Any) -> list[float]:
    rotation = pose.orientation
    return [float(rotation.x), float(rotation.y), float(rotation.z), float(rotation.w)]


def _sides(size: Any) -> list[float]:
    return [float(size.x), float(size.y), float(size.z)]


def _track(identity: str) -> int:
    return int(identity) if str(identity).isdecimal() else -1


LABEL_TYPES: Mapping[str, Callable[[Any, str, Problem], Iterator[LabelledMoment]]] = {
    "aqr_perception/msg/FusedDetectionArray": _fused,
    "vision_msgs/msg/Detection3DArray": _vision,
    "visualization_msgs/msg/MarkerArray": _markers,
}
"""Readers of labels by message type."""
