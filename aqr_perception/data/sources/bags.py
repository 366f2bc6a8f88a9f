# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Data set of labelled rosbag2 files, decoded as by the node."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.reader_cache import ReaderCache
from aqr_perception.data.rig_file import Rig
from aqr_perception.data.sources.bag_labels import (
    LabelledObject,
    labels_from_json,
    labels_from_topic,
)
from aqr_perception.data.sources.bag_moments import LABEL_TOLERANCE, Bag, Moment, MomentReader
from aqr_perception.data.sources.bag_topics import (
    bag_rig,
    check_times,
    labels_place,
    read_stamps,
)
from aqr_perception.data.sources.class_lists import class_problem
from aqr_perception.data.sources.drives import preceding
from aqr_perception.decoding.message_error import MessageError
from aqr_perception.frame import CLASSES, LabelledFrame

_log = logging.getLogger(__name__)


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
        reader, doubts = self._opened.reader(moment.bag.path), list[MessageError]()
        try:
            return MomentReader(reader, moment, self._sweeps, self._sweep_interval, self._classes, doubts).read()
        except MessageError as error:
            raise BagError(f"{moment.bag.path} at {moment.stamp_ns / 1e9:.6f} s: {error}") from error
        finally:
            self._say_once(moment.bag.path, doubts)

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

    def _class(self, moment: Moment, entry: LabelledObject) -> str | None:
        return moment.bag.rig.class_of(entry.name, self._classes)

    def _problem(self, error: BagError) -> None:
        if not self._skip_bad:
            raise error
        self.left_out += 1
        _log.warning("left out: %s", error)

    def _open(self, path: Path, rig: Rig | None) -> Bag:
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
        return Bag(path, found, stamps, tuple(labels))

    def _bag_moments(self, bag: Bag) -> Iterator[Moment]:
        """Yield the labelled moments of a bag; the nearest sweep gives the stamp."""
        for labels in bag.labels:
            if not bag.rig.lidar_topics:
                yield Moment(bag, labels, labels.stamp_ns)
                continue
            topic = bag.rig.lidar_topics[0]
            nearest = bag.stamps[topic].nearest(labels.stamp_ns, LABEL_TOLERANCE)
            if nearest is None:
                needed = f"one within {LABEL_TOLERANCE:g} s of {labels.stamp_ns / 1e9:.6f} s"
                self._problem(BagError(f"{labels.place}: found no sweep on {topic}, needed {needed}"))
                continue
            yield Moment(bag, labels, int(bag.stamps[topic].measured[nearest]))

    def _check_classes(self, folder: Path, bags: list[Bag]) -> None:
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
