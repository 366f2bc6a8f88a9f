# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Data set of labelled rosbag2 files, decoded as by the node."""

import logging
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
from aqr_perception.bags.reader_cache import ReaderCache
from aqr_perception.data.corruption.lidar_corruption import points_in_box
from aqr_perception.data.outlines import outline_shares
from aqr_perception.data.rig_file import Rig, RigCamera
from aqr_perception.data.sources.bag_labels import (
    LabelledMoment,
    LabelledObject,
    labels_from_json,
    labels_from_topic,
)
from aqr_perception.data.sources.bag_topics import (
    Stamps,
    bag_rig,
    check_times,
    fixed_frame,
    labels_place,
    read_stamps,
)
from aqr_perception.data.sources.class_lists import class_problem
from aqr_perception.data.sources.drives import preceding
from aqr_perception.decoding.message_error import MessageError
from aqr_perception.decoding.plausibility import camera_doubt, check_distances
from aqr_perception.decoding.sensor_data import no_frame_id, pinhole_image, scaled_points
from aqr_perception.frame import CLASSES, CameraView, Frame, GroundTruth, LabelledFrame
from aqr_perception.geometry import transform_points
from aqr_perception.sweep_choice import spaced_sweeps

_LABEL_TOLERANCE = 0.055
"""Seconds between labels and their sweep, at most; half the time between two sweeps at 10 Hz, with some jitter."""
_LONGEST_STEP = 0.25
"""Seconds between two sweeps of one frame, at most; a LiDAR at 5 Hz takes 0.2."""
_RANGE_NOISE = 0.06
"""Tolerance in metres for measured points outside a box's sides."""
_NEWEST = 1e-4

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Bag:
    """What is known of a bag before its sensor data is read."""

    path: Path
    rig: Rig
    stamps: dict[str, Stamps]
    labels: tuple[LabelledMoment, ...]


class _Moment(NamedTuple):
    """One labelled frame: its bag, its labels, and its stamp."""

    bag: _Bag
    labels: LabelledMoment
    stamp_ns: int


class BagDataset:
    """Data set of all labelled sweeps of some bags, in the order of the bags' names.

    Clouds, pictures, calibration and transforms are decoded by the code of the node: all layouts and encodings it
    knows, without lens distortion, at the size of CameraInfo. What it refuses is an error here, with bag and topic.

    Labels come from `Rig.labels`; without it from ``/ground_truth/objects``, from the only topic of a type of
    `bag_labels.LABEL_TYPES`, or from ``NAME.labels.json`` beside the bag. They are moved from their frame and stamp to
    the nearest sweep. The model frame is the rig's, or the LiDAR's.

    Args:
        folder: a bag (.mcap, .db3, or a rosbag2 folder), or a folder of bags.
        sweeps: largest number of LiDAR sweeps per frame.
        classes: class names of the ground truth; objects of other classes are left out.
        rig: topics, frames and class names; None: those that the bag's topics show.
        skip_bad: leave out records that cannot be used, with a warning for each, in place of an error.

    Raises:
        BagError: the folder has no bag; a bag has no labels or no sensor data, or a label is not usable; or no object
            of any bag has one of the classes. When a frame is read: its data is not usable.
    """

    def __init__(
        self,
        folder: Path,
        sweeps: int = 2,
        classes: tuple[str, ...] = CLASSES,
        rig: Rig | None = None,
        skip_bad: bool = False,
        sweep_interval: float = 0.0,
    ) -> None:
        self._classes, self._skip_bad, self.left_out = classes, skip_bad, 0
        self._sweeps = sweeps if rig is None or rig.max_sweeps is None else min(sweeps, rig.max_sweeps)
        self._sweep_interval = sweep_interval
        self._said: set[tuple[str, str]] = set()
        self._opened = ReaderCache()
        bags = [self._open(path, rig) for path in _bag_paths(folder)]
        self._moments = [moment for bag in bags for moment in self._bag_moments(bag)]
        self._check_classes(folder, bags)

    def __len__(self) -> int:
        return len(self._moments)

    def __getitem__(self, index: int) -> LabelledFrame:
        moment = self._moments[index]
        try:
            return self._read(moment)
        except MessageError as error:
            raise BagError(f"{moment.bag.path} at {moment.stamp_ns / 1e9:.6f} s: {error}") from error

    def earlier_frames(self, index: int, count: int, step: float = 0.5) -> tuple[LabelledFrame, ...]:
        """See `frames.LabelledDrives`: earlier labelled sweeps of the bag."""
        moments = [(moment.bag.path, moment.stamp_ns) for moment in self._moments]
        return tuple(self[earlier] for earlier in preceding(moments, index, count, step))

    def drive_of(self, index: int) -> str:
        """Return the drive of a frame: the name of its bag."""
        return self._moments[index].bag.path.name

    def place_of(self, index: int) -> str:
        """Return where a frame is from: bag, topic or file of its labels, and time."""
        return self._moments[index].labels.place

    def label_sets(self) -> list[frozenset[int]]:
        """Return the labels in each frame, for class-balanced sampling, without reading sensor data."""
        names = [{self._class(moment, entry) for entry in moment.labels.objects} for moment in self._moments]
        return [frozenset(self._classes.index(name) for name in found if name is not None) for found in names]

    def _class(self, moment: _Moment, entry: LabelledObject) -> str | None:
        return moment.bag.rig.class_of(entry.name, self._classes)

    def _problem(self, error: BagError) -> None:
        if not self._skip_bad:
            raise error
        self.left_out += 1
        _log.warning("left out: %s", error)

    def _open(self, path: Path, rig: Rig | None) -> _Bag:
        reader = self._opened.reader(path)
        found = bag_rig(reader, rig)
        place = labels_place(reader, found)
        labels = (
            labels_from_json(place, self._problem)
            if isinstance(place, Path)
            else labels_from_topic(reader, place, self._problem)
        )
        topics = [*found.lidar_topics, *(topic for c in found.cameras for topic in (c.image_topic, c.info_topic))]
        stamps = read_stamps(reader, topics)
        times = np.array([moment.stamp_ns for moment in labels], np.int64)
        check_times(path, stamps, times, str(place))
        return _Bag(path, found, stamps, tuple(labels))

    def _bag_moments(self, bag: _Bag) -> Iterator[_Moment]:
        """Yield the labelled moments of a bag; the nearest sweep gives the stamp."""
        for labels in bag.labels:
            if not bag.rig.lidar_topics:
                yield _Moment(bag, labels, labels.stamp_ns)
                continue
            topic = bag.rig.lidar_topics[0]
            nearest = bag.stamps[topic].nearest(labels.stamp_ns, _LABEL_TOLERANCE)
            if nearest is None:
                needed = f"one within {_LABEL_TOLERANCE:g} s of {labels.stamp_ns / 1e9:.6f} s"
                self._problem(BagError(f"{labels.place}: found no sweep on {topic}, needed {needed}"))
                continue
            yield _Moment(bag, labels, int(bag.stamps[topic].measured[nearest]))

    def _check_classes(self, folder: Path, bags: list[_Bag]) -> None:
        unknown: dict[str, int] = {}
        names: set[str] = set()
        known = False
        for bag in bags:
            for moment in bag.labels:
                for entry in moment.objects:
                    names.add(entry.name)
                    if bag.rig.class_of(entry.name, self._classes) is not None:
                        known = True
                    elif entry.name not in bag.rig.classes:
                        unknown[entry.name] = unknown.get(entry.name, 0) + 1
        problem = None if known else class_problem(self._classes, names)
        if problem is not None:
            raise BagError(f"{folder}: {problem}, or map them with 'classes' in a rig file (--rig)")
        foreign = {name: count for name, count in unknown.items() if name not in CLASSES}
        if foreign:
            listed = ", ".join(f"{count} of {name}" for name, count in sorted(foreign.items()))
            _log.warning(
                "%s: objects of classes that the model does not have are left out: %s; map them with 'classes' in a "
                "rig file (--rig)",
                folder,
                listed,
            )
        if not self._moments:
            raise BagError(f"{folder}: found no labelled sweep, needed one; check the topics and stamps of the labels")

    def _read(self, moment: _Moment) -> LabelledFrame:
        bag, stamp_ns = moment.bag, moment.stamp_ns
        reader = self._opened.reader(bag.path)
        tree = _transforms(reader)
        fixed = fixed_frame(bag.rig, tree.frames)
        messages = _read_messages(reader, self._wanted(bag, stamp_ns, fixed))
        sweeps = {topic: messages.get(topic, []) for topic in bag.rig.lidar_topics}
        frame_id = _model_frame(bag, sweeps, moment.labels)
        doubts: list[MessageError] = []
        points = self._points(bag, sweeps, tree, frame_id, stamp_ns, fixed, doubts)
        views = tuple(self._views(bag, messages, tree, frame_id, stamp_ns, fixed, doubts))
        self._say_once(bag.path, doubts)
        to_fixed = tree.lookup(fixed, stamp_ns, frame_id, stamp_ns) if fixed else None
        frame = Frame(stamp_ns, points, views, frame_id, to_fixed)
        truth = self._truth(moment, frame, tree, fixed)
        return LabelledFrame(frame, truth, np.eye(4) if to_fixed is None else to_fixed)

    def _wanted(self, bag: _Bag, stamp_ns: int, fixed: str) -> dict[str, list[tuple[int, int]]]:
        """Return by topic the (measured, recorded) times of the messages of a frame."""
        wanted: dict[str, list[tuple[int, int]]] = {}
        sweeps = self._sweeps if fixed else 1
        for number, topic in enumerate(bag.rig.lidar_topics):
            stamps = bag.stamps[topic]
            newest = stamps.nearest(stamp_ns, 0.0 if number == 0 else _LABEL_TOLERANCE)
            if newest is None:
                found = f"no sweep within {_LABEL_TOLERANCE:g} s of {stamp_ns / 1e9:.6f} s"
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

    def _points(
        self,
        bag: _Bag,
        sweeps: dict[str, list[Any]],
        tree: TransformTree,
        frame_id: str,
        stamp_ns: int,
        fixed: str,
        doubts: list[MessageError],
    ) -> NDArray[np.float32] | None:
        """Return the points (N, 5) of all sweeps in the model frame, newest first; None without a LiDAR."""
        if not sweeps:
            return None
        parts = []
        for topic, messages in sweeps.items():
            for message in sorted(messages, key=lambda message: -_stamp_ns(message)):
                points = scaled_points(message, topic, bag.rig.scale_of(topic), doubts)
                measured = _stamp_ns(message)
                to_model = tree.lookup(frame_id, stamp_ns, message.header.frame_id, measured, fixed)
                moved = np.empty((len(points), 5), np.float32)
                moved[:, :3] = transform_points(to_model, points)
                moved[:, 3], moved[:, 4] = points[:, 3], (stamp_ns - measured) / 1e9
                parts.append(moved)
        cloud = np.concatenate(parts)
        check_distances(cloud, ", ".join(sweeps))
        return cloud

    def _views(
        self,
        bag: _Bag,
        messages: dict[str, list[Any]],
        tree: TransformTree,
        frame_id: str,
        stamp_ns: int,
        fixed: str,
        doubts: list[MessageError],
    ) -> Iterator[CameraView]:
        for camera in bag.rig.cameras:
            if camera.image_topic in messages:
                (image,), (info,) = messages[camera.image_topic], messages[camera.info_topic]
                yield _view(camera, image, info, tree, frame_id, stamp_ns, fixed, doubts)

    def _truth(self, moment: _Moment, frame: Frame, tree: TransformTree, fixed: str) -> GroundTruth:
        labels = moment.labels
        kept = [(entry, name) for entry in labels.objects if (name := self._class(moment, entry)) is not None]
        to_model = np.eye(4)
        if kept:
            to_model = tree.lookup(frame.frame_id, frame.stamp_ns, labels.frame_id, labels.stamp_ns, fixed)
        delay = (frame.stamp_ns - labels.stamp_ns) / 1e9
        boxes = np.array([_box(entry, to_model, delay) for entry, _ in kept], np.float32).reshape(-1, 9)
        hits = np.zeros(len(boxes), np.int64)
        if frame.points is not None:
            newest = frame.points[np.abs(frame.points[:, 4]) <= max(_NEWEST, _LABEL_TOLERANCE)]
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

    def _say_once(self, bag: Path, doubts: list[MessageError]) -> None:
        for doubt in doubts:
            if (doubt.topic, doubt.problem) not in self._said:
                self._said.add((doubt.topic, doubt.problem))
                _log.warning("%s: %s", bag, doubt)


def _bag_paths(folder: Path) -> list[Path]:
    if folder.suffix in (".mcap", ".db3") and folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise BagError(f"{folder}: found no such folder, needed one with rosbag2 files; check --data-root")
    if _is_bag_folder(folder):
        return [folder]
    bags = sorted(path for path in folder.iterdir() if path.suffix in (".mcap", ".db3") or _is_bag_folder(path))
    if not bags:
        raise BagError(f"{folder}: found no bag, needed .mcap or .db3 files, or rosbag2 folders; check --data-root")
    return bags


def _is_bag_folder(path: Path) -> bool:
    return (path / "metadata.yaml").is_file()


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


def _model_frame(bag: _Bag, sweeps: dict[str, list[Any]], labels: LabelledMoment) -> str:
    if bag.rig.model_frame:
        return bag.rig.model_frame
    for topic, messages in sweeps.items():
        if not messages[0].header.frame_id:
            raise no_frame_id(topic)
        return str(messages[0].header.frame_id)
    return labels.frame_id


def _view(
    camera: RigCamera,
    image: Any,
    info: Any,
    tree: TransformTree,
    frame_id: str,
    stamp_ns: int,
    fixed: str,
    doubts: list[MessageError],
) -> CameraView:
    optical = image.header.frame_id or info.header.frame_id
    if not optical:
        raise no_frame_id(camera.image_topic)
    pinhole = pinhole_image(
        image, info, camera.image_topic, camera.info_topic, camera.rectified, camera.baseline_in_tf, 0, doubts
    )
    measured = _stamp_ns(image) - round(camera.offset * 1e9)
    extrinsics = tree.lookup(optical, measured, frame_id, stamp_ns, fixed)
    doubt = camera_doubt(extrinsics, optical, camera.image_topic)
    if doubt is not None:
        doubts.append(doubt)
    extrinsics[:3, 3] += pinhole.baseline
    return CameraView(camera.name, pinhole.pixels, pinhole.intrinsics, extrinsics, (stamp_ns - measured) / 1e9)


def _box(entry: LabelledObject, to_model: NDArray[np.float64], delay: float) -> list[float]:
    """Return a box (9,) in the model frame at the frame's stamp, `delay` seconds after the label's."""
    pose = to_model @ entry.pose
    velocity = to_model[:2, :2] @ np.asarray(entry.velocity, np.float64)
    centre = pose[:3, 3]
    if np.isfinite(velocity).all():
        centre[:2] += velocity * delay
    yaw = float(np.arctan2(pose[1, 0], pose[0, 0]))
    return [*centre, *entry.size, yaw, *velocity]
