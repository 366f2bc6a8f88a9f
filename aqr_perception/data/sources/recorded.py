# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Data set of recordings in the layouts of other cars: KITTI and DDAD (DGP), with a rig file's names and classes."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aqr_perception.data.corruption.lidar_corruption import points_in_box
from aqr_perception.data.outlines import outline_shares
from aqr_perception.data.recordings.kitti_object import (
    KITTI_CLASSES,
    is_kitti_object,
    kitti_frames,
    read_kitti_object,
)
from aqr_perception.data.recordings.recognition import open_recording
from aqr_perception.data.recordings.recorded_data import LabelledObject, Labels, Recording, RecordingError
from aqr_perception.data.recordings.recorded_frames import RecordedFrame, recorded_frames
from aqr_perception.data.rig_file import Rig, RigCamera
from aqr_perception.data.sources.class_lists import class_problem
from aqr_perception.data.sources.drives import preceding
from aqr_perception.data.sources.record_checks import check_size
from aqr_perception.frame import CLASSES, CameraView, GroundTruth, LabelledFrame

_RANGE_NOISE = 0.06
_SIGNS = ("scene_*.json", "velodyne_points", "keyframe.json")
"""Names in the folder of a scene in DGP's layout, of a drive of KITTI raw, and of a keyframe."""
_log = logging.getLogger(__name__)


class _Entry(NamedTuple):
    """A labelled frame of a recording."""

    drive: str
    frame: RecordedFrame
    labels: Labels

    @property
    def stamp_ns(self) -> int:
        return self.frame.sweeps[0].stamp_ns


class RecordingDataset:
    """Data set of the labelled sweeps of recordings.

    Args:
        root: the folder of the data.
        recordings: functions that read one recording each.
        sweeps: largest number of LiDAR sweeps per frame.
        classes: class names of the ground truth; objects of other classes are left out.
        rig: names of the cameras by channel, classes, largest number of sweeps; intensities are scaled by its factor.
        skip_bad: leave out recordings that cannot be read, with a warning for each; `left_out` counts them.

    Raises:
        RecordingError: a recording is broken, has no camera of the rig, or nothing is labelled with one of the classes.
    """

    def __init__(
        self,
        root: Path,
        recordings: Iterable[Callable[[], Recording]],
        sweeps: int = 1,
        classes: tuple[str, ...] = CLASSES,
        rig: Rig | None = None,
        skip_bad: bool = False,
        sweep_interval: float = 0.0,
    ) -> None:
        self._root, self._classes, self._rig = root, classes, rig or Rig()
        self.left_out = 0
        sweeps = min(sweeps, self._rig.max_sweeps or sweeps)
        self._sweep_interval = sweep_interval
        self._entries: list[_Entry] = []
        for read in recordings:
            try:
                self._entries += self._labelled(read(), sweeps)
            except RecordingError as error:
                if not skip_bad:
                    raise
                self.left_out += 1
                _log.warning("left out: %s", error)
        self._check_classes()

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> LabelledFrame:
        entry = self._entries[index]
        frame = entry.frame.frame()
        if frame.points is not None and self._rig.intensity_scale != 1.0:
            frame.points[:, 3] *= self._rig.intensity_scale
        frame = replace(frame, cameras=self._named(frame.cameras))
        names = [self._class(labelled) for labelled in entry.labels.objects]
        kept = [(o, name) for o, name in zip(entry.labels.objects, names, strict=True) if name is not None]
        boxes = np.array([labelled.box for labelled, _ in kept], np.float32).reshape(-1, 9)
        hits = np.zeros(len(boxes), np.int64)
        if frame.points is not None:
            newest = frame.points[frame.points[:, 4] == 0.0]
            counts = [len(points_in_box(newest, box, _RANGE_NOISE)) for box in boxes]
            hits = np.array(counts, np.int64).reshape(-1)
        truth = GroundTruth(
            boxes,
            np.array([self._classes.index(name) for _, name in kept], np.int64),
            np.array([labelled.track for labelled, _ in kept], np.int64),
            hits,
            (outline_shares(boxes, frame.cameras) * (hits > 0)[:, None]).astype(np.float32),
            self._classes,
        )
        return LabelledFrame(frame, truth, np.eye(4) if frame.to_fixed is None else frame.to_fixed)

    def earlier_frames(self, index: int, count: int, step: float = 0.5) -> tuple[LabelledFrame, ...]:
        """See `frames.LabelledDrives`: earlier labelled sweeps of the recording; none where the motion is unknown."""
        if self._entries[index].frame.lidar_to_fixed is None:
            return ()
        moments = [(entry.drive, entry.stamp_ns) for entry in self._entries]
        return tuple(self[earlier] for earlier in preceding(moments, index, count, step))

    def drive_of(self, index: int) -> str:
        """Return the drive of a frame: its recording."""
        return str(self._entries[index].drive)

    def place_of(self, index: int) -> str:
        """Return where a frame is from: its recording and time."""
        entry = self._entries[index]
        return f"{self._root}: {entry.drive} at {entry.stamp_ns / 1e9:.6f} s"

    def label_sets(self) -> list[frozenset[int]]:
        """Return the labels in each frame, for class-balanced sampling, without reading sensor data."""
        found = [{self._class(labelled) for labelled in entry.labels.objects} for entry in self._entries]
        return [frozenset(self._classes.index(name) for name in names if name is not None) for names in found]

    def _class(self, labelled: LabelledObject) -> str | None:
        """Return an object's class of the model; the rig's mapping of the data's own name goes first."""
        name = labelled.source_class if labelled.source_class in self._rig.classes else labelled.class_name
        return self._rig.class_of(name, self._classes)

    def _labelled(self, recording: Recording, sweeps: int) -> list[_Entry]:
        by_stamp = {labels.stamp_ns: labels for labels in recording.labels}
        for labels in recording.labels:
            for number, entry in enumerate(labels.objects):
                place = f"{self._root}: {recording.name} at {labels.stamp_ns} ns: object {number} ({entry.class_name})"
                check_size(entry.box[3:6].tolist(), place, RecordingError)
                if not np.isfinite(entry.box[:7]).all():
                    raise RecordingError(f"{place}: found the box {entry.box[:7].tolist()}, needed finite numbers")
        found = {name.lower() for name in recording.cameras}
        missing = [camera.name for camera in self._rig.cameras if _channel(camera) not in found]
        if missing and recording.cameras:
            has = ", ".join(recording.cameras)
            raise RecordingError(
                f"{self._rig.source}: cameras: {', '.join(missing)}: found no such channel in {recording.name}, needed "
                f"camera_channels out of {has}"
            )
        frames = recorded_frames(recording, sweeps, self._sweep_interval)
        stamps = by_stamp.keys()
        return [
            _Entry(recording.name, frame, by_stamp[frame.sweeps[0].stamp_ns])
            for frame in frames
            if frame.sweeps[0].stamp_ns in stamps
        ]

    def _named(self, views: Sequence[CameraView]) -> tuple[CameraView, ...]:
        """Return the views of the rig's cameras, under its names and in its order; all of them without a rig."""
        if not self._rig.cameras:
            return tuple(views)
        found = {view.name.lower(): view for view in views}
        return tuple(
            replace(found[channel], name=camera.name)
            for camera in self._rig.cameras
            if (channel := _channel(camera)) in found
        )

    def _check_classes(self) -> None:
        if not self._entries:
            raise RecordingError(f"{self._root}: found no labelled sweep, needed one; give data with labels")
        objects = [labelled for entry in self._entries for labelled in entry.labels.objects]
        names = {labelled.class_name for labelled in objects if labelled.source_class not in self._rig.classes}
        if not any(map(self._class, objects)):
            problem = class_problem(self._classes, names)
            if problem is not None:
                raise RecordingError(f"{self._root}: {problem}, or map them with 'classes' in a rig file (--rig)")
        known = {*CLASSES, *self._rig.classes, *self._classes}
        foreign = sorted(names - known)
        if foreign:
            _log.warning(
                "%s: objects of %s are left out; map them with 'classes' in a rig file (--rig)",
                self._root,
                ", ".join(foreign),
            )


def _channel(camera: RigCamera) -> str:
    """Return a camera's name in a recording, in small letters: DDAD's CAMERA_01 is camera_01 there."""
    return (camera.channel or camera.name).lower()


def find_recordings(root: Path, split: str, rig: Rig | None) -> list[Callable[[], Recording]]:
    """Return readers of the recordings in a folder, or in its folders: one for each drive or unrelated frame.

    Args:
        split: ``train`` or ``val``, for KITTI's object benchmark with an ``ImageSets/SPLIT.txt``.

    Raises:
        RecordingError: there is none.
    """
    if not root.is_dir():
        raise RecordingError(f"{root}: found no such folder, needed recorded data; check --data-root")
    if is_kitti_object(root):
        classes = {**KITTI_CLASSES, **(rig.classes if rig is not None else {})}
        return [partial(read_kitti_object, root, number, classes) for number in kitti_frames(root, split)]
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    found = [folder for folder in folders if any(any(folder.glob(sign)) for sign in _SIGNS)]
    return [partial(open_recording, folder) for folder in found] or [partial(open_recording, root)]
