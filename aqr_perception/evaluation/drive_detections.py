# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Detections in whole drives, with all sensors and with failing ones, kept in one file a drive."""

import hashlib
import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from aqr_perception.data.corruption.changed_frame import with_points, with_views
from aqr_perception.detector import Detector
from aqr_perception.evaluation.workers import in_processes
from aqr_perception.frame import Detections, GroundTruth, LabelledFrame, WorldTruth
from aqr_perception.options import DetectionOptions

Condition = Literal["clean", "failures"]
CONDITIONS: tuple[Condition, ...] = ("clean", "failures")

BLACK_CAMERA = ("front", 6.0, 12.0)
"""Camera, begin and end, in seconds of a drive, of the demo's first failure: black images."""
LIDAR_GONE = (12.0, 16.0)
"""Begin and end of the demo's second failure."""

_FORMAT = 1
"""Version of the files and of what they hold; files of other versions are detected again."""


@dataclass(frozen=True)
class LabelledDrive:
    """A drive with ground truth.

    Attributes:
        name: names its file, too.
        count: number of frames.
        begin: begins the frames, in order of time; can be pickled.
        origin: all that the frames depend on, as JSON values.
    """

    name: str
    count: int
    begin: Callable[[], Iterable[LabelledFrame]]
    origin: Mapping[str, object]


class DetectedFrame(NamedTuple):
    """Detections of one frame of a drive with its truth.

    Attributes:
        stamp_ns: time of the frame in nanoseconds.
        to_world: (4, 4), model frame -> a frame fixed to the ground.
        detections: by condition, in the model frame.
    """

    stamp_ns: int
    to_world: NDArray[np.float64]
    truth: GroundTruth
    detections: Mapping[Condition, Detections]


def with_failures(labelled: LabelledFrame, seconds: float) -> LabelledFrame:
    """Return the frame with the demo's failures at a time in seconds since the drive's start.

    The frame itself where nothing fails. Where no camera is named `front` or `..._FRONT`, the first one goes black.
    """
    _, begin, end = BLACK_CAMERA
    if begin <= seconds < end and labelled.frame.cameras:
        black = black_camera([view.name for view in labelled.frame.cameras])
        views = (
            replace(view, image=np.zeros_like(view.image)) if view.name == black else view
            for view in labelled.frame.cameras
        )
        labelled = with_views(labelled, tuple(views))
    if LIDAR_GONE[0] <= seconds < LIDAR_GONE[1]:
        labelled = with_points(labelled, None)
    return labelled


def black_camera(names: Sequence[str]) -> str:
    """Return which of a vehicle's cameras fails."""
    front = BLACK_CAMERA[0]
    return next((name for name in names if name.lower().rpartition(f"_{front}")[1:] == (f"_{front}", "")), None) or (
        front if front in names else names[0]
    )


def detect_drive(
    detector: Detector, drive: LabelledDrive, options: DetectionOptions, advance: Callable[[int], Any] = int
) -> list[DetectedFrame]:
    """Return the detections of a drive in both conditions.

    Args:
        advance: called with 1 after each frame.
    """
    # Memory of one condition must not reach the other.
    passes = [(condition,) for condition in CONDITIONS] if detector.remembers else [CONDITIONS]
    found: dict[Condition, list[Detections]] = {condition: [] for condition in CONDITIONS}
    frames: list[tuple[int, NDArray[np.float64], GroundTruth]] = []
    for conditions in passes:
        detector.forget()
        frames = []
        for labelled in drive.begin():
            stamp = labelled.frame.stamp_ns
            frames.append((stamp, labelled.model_to_world, labelled.truth))
            failing = with_failures(labelled, (stamp - frames[0][0]) / 1e9)
            for condition in conditions:
                if condition == "failures" and failing is labelled and not detector.remembers:
                    found[condition].append(found["clean"][-1])
                    continue
                asked = failing if condition == "failures" else labelled
                found[condition].append(detector.detect(asked.frame, options).detections)
            if "failures" in conditions:
                advance(1)
    return [
        DetectedFrame(*frame, {condition: found[condition][index] for condition in CONDITIONS})
        for index, frame in enumerate(frames)
    ]


def identity(detector: Detector, options: DetectionOptions) -> str:
    """Return a digest of all in a detector on which its detections depend."""
    digest = hashlib.sha256(repr((_FORMAT, options, detector.device.type, detector.formats)).encode())
    digest.update(repr(detector.model.preset).encode())
    for name, tensor in sorted(detector.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else b"")
        digest.update(b"" if tensor.ndim else repr(tensor.item()).encode())
    return digest.hexdigest()


class StoredDrives:
    """Detections of drives in a folder; an interrupted run continues with the drives that it lacks.

    Args:
        folder: holds ``NAME.pt`` of each drive.
        detector: see `identity`; detections of another one are not used.
    """

    def __init__(self, folder: Path, detector: Detector, options: DetectionOptions) -> None:
        self.folder, self._detector, self._options = folder, detector, options
        self._identity = identity(detector, options)

    def path(self, drive: LabelledDrive) -> Path:
        """Return the file of a drive."""
        safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in drive.name)
        return self.folder / f"{safe}.pt"

    def stored(self, drive: LabelledDrive) -> list[DetectedFrame] | None:
        """Return the stored detections of a drive; None if there are none of this detector."""
        try:
            content = torch.load(self.path(drive), weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return None
        if not isinstance(content, dict) or content.get("key") != self._key(drive):
            return None
        return [_detected(entry) for entry in content["frames"]]

    def detect(
        self, drives: Sequence[LabelledDrive], workers: int = 1, progress: bool = False
    ) -> Iterator[tuple[str, list[DetectedFrame]]]:
        """Yield name and detections of every drive, in order.

        Args:
            workers: processes that share the drives, one thread each.
            progress: whether to show a progress bar.
        """
        missing = [drive for drive in drives if self.stored(drive) is None]
        total, done = sum(drive.count for drive in drives), {drive.name for drive in missing}
        first = sum(drive.count for drive in drives if drive.name not in done)
        with tqdm(total=total, initial=first, desc="detecting", unit="frame", disable=not progress) as bar:
            if workers == 1 or len(missing) < 2:
                for drive in missing:
                    self._write(drive, detect_drive(self._detector, drive, self._options, bar.update))
            else:
                content = pickle.dumps(self)
                items = [(content, drive) for drive in missing]
                for count in in_processes(_detect_in_worker, items, min(workers, len(items))):
                    bar.update(count)
        for drive in drives:
            frames = self.stored(drive)
            if frames is None:
                raise OSError(f"{self.path(drive)}: found no detections a moment after they were written; run again")
            yield drive.name, frames

    def _key(self, drive: LabelledDrive) -> str:
        return f"{self._identity} {json.dumps(drive.origin, sort_keys=True)}"

    def _write(self, drive: LabelledDrive, frames: Sequence[DetectedFrame]) -> None:
        path = self.path(drive)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        entries = [
            {
                "stamp_ns": frame.stamp_ns,
                "to_world": torch.from_numpy(np.ascontiguousarray(frame.to_world)),
                "truth": _plain(asdict(frame.truth)),
                "detections": {name: _plain(asdict(found)) for name, found in frame.detections.items()},
            }
            for frame in frames
        ]
        torch.save({"key": self._key(drive), "frames": entries}, partial)
        partial.replace(path)


def _detect_in_worker(item: tuple[bytes, LabelledDrive]) -> int:
    content, drive = item
    torch.set_num_threads(1)
    store: StoredDrives = pickle.loads(content)
    store._write(drive, detect_drive(store._detector, drive, store._options))
    return drive.count


def _plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dataclass's dictionary with tensors in place of arrays, as torch reads it without pickled code."""
    plain: dict[str, Any] = {}
    for name, value in entry.items():
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.ascontiguousarray(value))
        plain[name] = _plain(value) if isinstance(value, dict) else value
    return plain


def _arrays(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in entry.items()}


def _detected(entry: Mapping[str, Any]) -> DetectedFrame:
    truth = _arrays(entry["truth"])
    if truth["world"] is not None:
        truth["world"] = WorldTruth(**_arrays(truth["world"]))
    detections = {condition: Detections(**_arrays(entry["detections"][condition])) for condition in CONDITIONS}
    return DetectedFrame(entry["stamp_ns"], entry["to_world"].numpy(), GroundTruth(**truth), detections)
