# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""One labelled frame of a rosbag2 file, decoded as by the node."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.poses import TransformTree, stamp_to_ns
from aqr_perception.bags.reader import BagReader
from aqr_perception.data.corruption.lidar_corruption import points_in_box
from aqr_perception.data.outlines import outline_shares
from aqr_perception.data.rig_file import Rig, RigCamera
from aqr_perception.data.sources.bag_labels import LabelledMoment, LabelledObject
from aqr_perception.data.sources.bag_topics import Stamps, fixed_frame
from aqr_perception.decoding.message_error import MessageError
from aqr_perception.decoding.plausibility import camera_doubt, check_distances
from aqr_perception.decoding.sensor_data import no_frame_id, pinhole_image, scaled_points
from aqr_perception.frame import CameraView, Frame, GroundTruth, LabelledFrame
from aqr_perception.geometry import transform_points
from aqr_perception.sweep_choice import spaced_sweeps

LABEL_TOLERANCE = 0.055
"""Seconds between labels and their sweep, at most; half the time between two sweeps at 10 Hz, with some jitter."""

_LONGEST_STEP = 0.25
"""Seconds between two sweeps of one frame, at most; a LiDAR at 5 Hz takes 0.2."""
_RANGE_NOISE = 0.06
"""Tolerance in metres for measured points outside a box's sides."""
_NEWEST = 1e-4


@dataclass(frozen=True)
class Bag:
    """What is known of a bag before its sensor data is read."""

    path: Path
    rig: Rig
    stamps: dict[str, Stamps]
    labels: tuple[LabelledMoment, ...]


class Moment(NamedTuple):
    """One labelled frame: its bag, its labels, and its stamp."""

    bag: Bag
    labels: LabelledMoment
    stamp_ns: int


class MomentReader:
    """Reader of one labelled moment.

    Args:
        reader: of the moment's bag.
        moment: the moment.
        sweeps: largest number of LiDAR sweeps.
        sweep_interval: seconds between two of them, at least.
        classes: class names of the ground truth; objects of other classes are left out.
        doubts: receives what is odd about messages that are usable nevertheless.

    Raises:
        BagError, MessageError: the bag's transforms are not usable.
    """

    def __init__(
        self,
        reader: BagReader,
        moment: Moment,
        sweeps: int,
        sweep_interval: float,
        classes: tuple[str, ...],
        doubts: list[MessageError],
    ) -> None:
        self._reader, self._moment, self._classes = reader, moment, classes
        self._sweeps, self._sweep_interval, self._doubts = sweeps, sweep_interval, doubts
        self._bag, self._stamp_ns = moment.bag, moment.stamp_ns
        self._tree = _transforms(reader)
        self._fixed = fixed_frame(self._bag.rig, self._tree.frames)

    def read(self) -> LabelledFrame:
        """Return the frame.

        Raises:
            BagError, MessageError: its data is not usable.
        """
        messages = _read_messages(self._reader, self._wanted())
        sweeps = {topic: messages.get(topic, []) for topic in self._bag.rig.lidar_topics}
        frame_id = _model_frame(self._moment, sweeps)
        points = self._points(sweeps, frame_id)
        views = tuple(self._views(messages, frame_id))
        to_fixed = None
        if self._fixed:
            to_fixed = self._tree.lookup(self._fixed, self._stamp_ns, frame_id, self._stamp_ns)
        frame = Frame(self._stamp_ns, points, views, frame_id, to_fixed)
        return LabelledFrame(frame, self._truth(frame), np.eye(4) if to_fixed is None else to_fixed)

    def _wanted(self) -> dict[str, list[tuple[int, int]]]:
        """Return by topic the (measured, recorded) times of the messages of the frame."""
        bag, stamp_ns = self._bag, self._stamp_ns
        wanted: dict[str, list[tuple[int, int]]] = {}
        sweeps = self._sweeps if self._fixed else 1
        for number, topic in enumerate(bag.rig.lidar_topics):
            stamps = bag.stamps[topic]
            newest = stamps.nearest(stamp_ns, 0.0 if number == 0 else LABEL_TOLERANCE)
            if newest is None:
                found = f"no sweep within {LABEL_TOLERANCE:g} s of {stamp_ns / 1e9:.6f} s"
                raise BagError(f"{bag.path}: {topic}: found {found}, needed one of each LiDAR")
            past_ns = (int(stamps.measured[index]) for index in range(newest, -1, -1))
            steps = spaced_sweeps(past_ns, sweeps, self._sweep_interval, _LONGEST_STEP)
            indices = [newest - step for step in steps]
            wanted[topic] = [(int(stamps.measured[i]), int(stamps.recorded[i])) for i in indices]
        for camera in bag.rig.cameras:
            stamps, infos = bag.stamps[camera.image_topic], bag.stamps[camera.info_topic]
            index = stamps.nearest(stamp_ns + round(camera.offset * 1e9), bag.rig.max_camera_age)
            if index is None:
                continue
            measured = int(stamps.measured[index])
            info = max(int(np.searchsorted(infos.measured, measured, side="right")) - 1, 0)
            wanted[camera.image_topic] = [(measured, int(stamps.recorded[index]))]
            wanted[camera.info_topic] = [(int(infos.measured[info]), int(infos.recorded[info]))]
        return wanted

    def _points(self, sweeps: dict[str, list[Any]], frame_id: str) -> NDArray[np.float32] | None:
        """Return the points (N, 5) of all sweeps in the model frame, newest first; None without a LiDAR."""
        if not sweeps:
            return None
        parts = []
        for topic, messages in sweeps.items():
            for message in sorted(messages, key=lambda message: -_stamp_ns(message)):
                points = scaled_points(message, topic, self._bag.rig.scale_of(topic), self._doubts)
                measured = _stamp_ns(message)
                to_model = self._tree.lookup(frame_id, self._stamp_ns, message.header.frame_id, measured, self._fixed)
                moved = np.empty((len(points), 5), np.float32)
                moved[:, :3] = transform_points(to_model, points)
                moved[:, 3], moved[:, 4] = points[:, 3], (self._stamp_ns - measured) / 1e9
                parts.append(moved)
        cloud = np.concatenate(parts)
        check_distances(cloud, ", ".join(sweeps))
        return cloud

    def _views(self, messages: dict[str, list[Any]], frame_id: str) -> Iterator[CameraView]:
        for camera in self._bag.rig.cameras:
            if camera.image_topic in messages:
                (image,), (info,) = messages[camera.image_topic], messages[camera.info_topic]
                yield self._view(camera, image, info, frame_id)

    def _view(self, camera: RigCamera, image: Any, info: Any, frame_id: str) -> CameraView:
        optical = image.header.frame_id or info.header.frame_id
        if not optical:
            raise no_frame_id(camera.image_topic)
        pinhole = pinhole_image(
            image, info, camera.image_topic, camera.info_topic, camera.rectified, camera.baseline_in_tf, 0, self._doubts
        )
        measured = _stamp_ns(image) - round(camera.offset * 1e9)
        extrinsics = self._tree.lookup(optical, measured, frame_id, self._stamp_ns, self._fixed)
        doubt = camera_doubt(extrinsics, optical, camera.image_topic)
        if doubt is not None:
            self._doubts.append(doubt)
        extrinsics[:3, 3] += pinhole.baseline
        age = (self._stamp_ns - measured) / 1e9
        return CameraView(camera.name, pinhole.pixels, pinhole.intrinsics, extrinsics, age)

    def _truth(self, frame: Frame) -> GroundTruth:
        labels, rig = self._moment.labels, self._bag.rig
        named = ((entry, rig.class_of(entry.name, self._classes)) for entry in labels.objects)
        kept = [(entry, name) for entry, name in named if name is not None]
        to_model = np.eye(4)
        if kept:
            to_model = self._tree.lookup(frame.frame_id, frame.stamp_ns, labels.frame_id, labels.stamp_ns, self._fixed)
        delay = (frame.stamp_ns - labels.stamp_ns) / 1e9
        boxes = np.array([_box(entry, to_model, delay) for entry, _ in kept], np.float32).reshape(-1, 9)
        hits = np.zeros(len(boxes), np.int64)
        if frame.points is not None:
            newest = frame.points[np.abs(frame.points[:, 4]) <= max(_NEWEST, LABEL_TOLERANCE)]
            counts = [len(points_in_box(newest, box, margin=_RANGE_NOISE)) for box in boxes]
            hits = np.array(counts, np.int64).reshape(-1)
        # Bags do not record occlusion: an object that the data calls unseen, or without a LiDAR hit, counts as hidden.
        seen = [
            (entry.seen if entry.seen is not None else frame.points is None or count > 0)
            for (entry, _), count in zip(kept, hits, strict=True)
        ]
        shares = outline_shares(boxes, frame.cameras) * np.array(seen, np.float32).reshape(-1, 1)
        return GroundTruth(
            boxes,
            np.array([self._classes.index(name) for _, name in kept], np.int64),
            np.array([entry.track for entry, _ in kept], np.int64),
            hits,
            shares.astype(np.float32),
            self._classes,
        )


@lru_cache(maxsize=32)
def _transforms(reader: BagReader) -> TransformTree:
    topics = {"/tf", "/tf_static"} & {topic.name for topic in reader.topics}
    decoded = [(message.topic, message.decode()) for message in reader.messages(topics)] if topics else []
    moving = [message for topic, message in decoded if topic == "/tf"]
    static = [message for topic, message in decoded if topic == "/tf_static"]
    return TransformTree(moving, static, str(reader.path))


def _read_messages(reader: BagReader, wanted: dict[str, list[tuple[int, int]]]) -> dict[str, list[Any]]:
    """Return the decoded messages of a frame by topic."""
    found: dict[str, list[Any]] = {}
    pending = {(topic, recorded) for topic, times in wanted.items() for _, recorded in times}
    stamps = {topic: {measured for measured, _ in times} for topic, times in wanted.items()}
    # One pass over the frame's time; calibration may be recorded once, long before.
    for topic, recorded in sorted(pending, key=lambda entry: entry[1]):
        for message in reader.messages((topic,), recorded, recorded + 1):
            decoded = message.decode()
            if _stamp_ns(decoded) in stamps[topic]:
                found.setdefault(topic, []).append(decoded)
                break
    return found


def _stamp_ns(message: Any) -> int:
    return stamp_to_ns(message.header.stamp)


def _model_frame(moment: Moment, sweeps: dict[str, list[Any]]) -> str:
    if moment.bag.rig.model_frame:
        return moment.bag.rig.model_frame
    for topic, messages in sweeps.items():
        if not messages[0].header.frame_id:
            raise no_frame_id(topic)
        return str(messages[0].header.frame_id)
    return moment.labels.frame_id


def _box(entry: LabelledObject, to_model: NDArray[np.float64], delay: float) -> list[float]:
    """Return a box (9,) in the model frame at the frame's stamp, `delay` seconds after the label's."""
    pose = to_model @ entry.pose
    velocity = to_model[:2, :2] @ np.asarray(entry.velocity, np.float64)
    centre = pose[:3, 3]
    if np.isfinite(velocity).all():
        centre[:2] += velocity * delay
    yaw = float(np.arctan2(pose[1, 0], pose[0, 0]))
    return [*centre, *entry.size, yaw, *velocity]
