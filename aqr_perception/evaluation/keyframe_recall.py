# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Recall and false alarms of a detector on labelled recordings of other vehicles, with each sensor alone and together.

A few frames of a foreign vehicle allow no mAP. The rule here: objects of `RECALL_CLASSES` with at least `LEAST_POINTS`
LiDAR points within `REACH` metres count as found if a detection of their class is within `MATCH` metres of their
centre, best scores first (as in nuScenes' matching, arXiv:1903.11027). A detection within the reach that matches no
object of its class, counted or not, is a false alarm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from aqr_perception.data.recordings.recorded_data import Labels, Matrix, Recording, RecordingError
from aqr_perception.data.recordings.recorded_frames import recorded_frames
from aqr_perception.data.recordings.trained_frame import ground_below, trained_frame
from aqr_perception.detector import Detector
from aqr_perception.frame import Detections, Frame, FramePlacement
from aqr_perception.geometry import invert, project, transform_points
from aqr_perception.options import DetectionOptions

RECALL_CLASSES = ("car", "pedestrian")
LEAST_POINTS = 5
REACH = 30.0
MATCH = 2.0
RULE = (
    f"Found: objects with {LEAST_POINTS} LiDAR points or more within {REACH:g} m, a detection of their class within "
    f"{MATCH:g} m; false alarms: detections within {REACH:g} m without an object of their class."
)
Sensors = Literal["LiDAR + cameras", "LiDAR", "cameras"]
SENSORS: tuple[Sensors, ...] = ("LiDAR + cameras", "LiDAR", "cameras")


@dataclass(frozen=True)
class ClassCount:
    """Objects of one class that count, those found, and false alarms."""

    objects: int = 0
    found: int = 0
    false_alarms: int = 0

    def __add__(self, other: "ClassCount") -> "ClassCount":
        return ClassCount(
            self.objects + other.objects, self.found + other.found, self.false_alarms + other.false_alarms
        )


@dataclass(frozen=True)
class RecallRow:
    """Counts of one recording with one choice of sensors and least score; `counts` by class."""

    score_threshold: float
    recording: str
    sensors: Sensors
    frames: int
    counts: Mapping[str, ClassCount]


def keyframe_recall(
    detector: Detector,
    recordings: Sequence[Recording],
    thresholds: Sequence[float] = (),
    progress: bool = True,
) -> list[RecallRow]:
    """Return the rows of every labelled recording and, last, of all together, for each threshold and choice of sensors.

    Frames are turned and lifted to where the model was trained (`Preset.model_frame`), from the ground in the sweeps.

    Args:
        thresholds: least scores; none for the detector's own.

    Raises:
        RecordingError: no recording has labels, or one shows no clear ground.
        OptionError: a threshold is out of range.
    """
    wanted = list(dict.fromkeys(thresholds)) or [detector.options.score_threshold]
    options = [replace(detector.options, score_threshold=threshold) for threshold in wanted]
    labelled = [recording for recording in recordings if recording.labels]
    if not labelled:
        names = ", ".join(recording.name for recording in recordings) or "none"
        raise RecordingError(f"found no labels in {names}, needed at least one keyframe.json with objects")
    rows = [row for recording in labelled for row in _rows(detector, recording, options, progress)]
    for threshold in wanted if len(labelled) > 1 else ():
        for sensors in SENSORS:
            same = [row for row in rows if (row.score_threshold, row.sensors) == (threshold, sensors)]
            counts = {name: sum((row.counts[name] for row in same), ClassCount()) for name in RECALL_CLASSES}
            rows.append(RecallRow(threshold, "all", sensors, sum(row.frames for row in same), counts))
    return sorted(rows, key=lambda row: wanted.index(row.score_threshold))


def recall_table(rows: Sequence[RecallRow]) -> str:
    """Return the rows as a Markdown table."""
    head = "| recording | frames | sensors | " + " | ".join(f"{name}s found" for name in RECALL_CLASSES)
    lines = [f"{head} | false alarms a frame |", "|---|---:|---|" + "---:|" * (len(RECALL_CLASSES) + 1)]
    for row in rows:
        cells = [f"{row.counts[name].found} of {row.counts[name].objects}" for name in RECALL_CLASSES]
        alarms = sum(count.false_alarms for count in row.counts.values()) / row.frames
        lines.append(f"| {row.recording} | {row.frames} | {row.sensors} | {' | '.join(cells)} | {alarms:.1f} |")
    return "\n".join(lines)


def _rows(
    detector: Detector, recording: Recording, options: Sequence[DetectionOptions], progress: bool
) -> list[RecallRow]:
    """Return the rows of one recording; its frames are detected once, at the lowest threshold."""
    lowest = min(options, key=lambda one: one.score_threshold)
    preset = detector.model.preset
    to_model = model_frame(recording, preset.model_frame)
    labels = {entry.stamp_ns: entry for entry in recording.labels}
    counts = {
        (one.score_threshold, sensors): dict.fromkeys(RECALL_CLASSES, ClassCount())
        for one in options
        for sensors in SENSORS
    }
    recorded = recorded_frames(recording, preset.sweeps, preset.sweep_interval)
    frames = [entry for entry in recorded if entry.sweeps[0].stamp_ns in labels]
    for recorded in tqdm(frames, desc=recording.name, unit="frame", disable=not progress):
        lidar_to_model = to_model @ recorded.sweeps[0].lidar_to_vehicle
        frame = moved(recorded.frame(), lidar_to_model)
        truth = labels[frame.stamp_ns]
        for sensors, chosen in _choices(frame).items():
            detections = detector.detect(chosen, lowest).detections
            judged = judged_area(truth, frame)
            for one in options:
                scored = _with_scores(detections, one)
                for name in RECALL_CLASSES:
                    found = count(name, scored, truth, lidar_to_model, judged)
                    counts[one.score_threshold, sensors][name] += found
    return [
        RecallRow(threshold, recording.name, sensors, len(frames), of_sensors)
        for (threshold, sensors), of_sensors in counts.items()
    ]


def _with_scores(detections: Detections, options: DetectionOptions) -> Detections:
    """Return the detections with the scores that options ask for."""
    kept = detections.scores >= np.array(options.least_scores(detections.classes), np.float32)[detections.labels]
    fields = ("boxes", "scores", "labels", "lidar_weight", "camera_weight", "camera_weights")
    return replace(detections, **{name: getattr(detections, name)[kept] for name in fields})


def _choices(frame: Frame) -> dict[Sensors, Frame]:
    return {
        "LiDAR + cameras": frame,
        "LiDAR": replace(frame, cameras=()),
        "cameras": replace(frame, points=None),
    }


def model_frame(recording: Recording, placement: FramePlacement | None) -> Matrix:
    """Return the (4, 4) transform vehicle frame -> frame of the model's training; the LiDAR's own if that is unknown.

    Raises:
        RecordingError: the sweeps show no clear ground.
    """
    lidar_to_vehicle = recording.sweeps[0].lidar_to_vehicle
    if placement is None:
        return invert(lidar_to_vehicle)
    height = ground_below(recording.sweeps)
    if height is None:
        raise RecordingError(
            f"{recording.name}: found no clear ground in the sweeps, needed it to place the model's frame "
            f"{placement.height} m above it; leave this recording out"
        )
    return invert(trained_frame(height, placement, lidar_to_vehicle))


def moved(frame: Frame, to_model: Matrix) -> Frame:
    """Return a frame in another model frame; `to_model` (4, 4) maps the present one to it."""
    points = None
    if frame.points is not None:
        points = frame.points.copy()
        points[:, :3] = transform_points(to_model, points)
    from_model = invert(to_model)
    views = tuple(replace(view, extrinsics=view.extrinsics @ from_model) for view in frame.cameras)
    to_fixed = None if frame.to_fixed is None else frame.to_fixed @ from_model
    return replace(frame, points=points, cameras=views, to_fixed=to_fixed)


def judged_area(labels: Labels, frame: Frame) -> Callable[[NDArray[np.float64]], bool]:
    """Return whether objects at a centre (3,) are labelled: everywhere, or where an image shows a labelled place."""

    def judged(centre: NDArray[np.float64]) -> bool:
        if labels.everywhere:
            return True
        for view in frame.cameras:
            pixels, depths = project(view.intrinsics, transform_points(view.extrinsics, centre[None]))
            height, width = view.image.shape[:2]
            u, v = pixels[0]
            if depths[0] <= 0 or not (0 <= u < width and 0 <= v < height):
                continue
            regions = labels.ignored.get(view.name, np.zeros((0, 4)))
            return not any(u0 <= u <= u1 and v0 <= v <= v1 for u0, v0, u1, v1 in regions)
        return False

    return judged


def count(
    name: str,
    detections: Detections,
    labels: Labels,
    lidar_to_model: Matrix,
    judged: Callable[[NDArray[np.float64]], bool],
) -> ClassCount:
    """Return the counts of one class in one frame.

    Args:
        detections: in the model's frame, best first.
        labels: in the LiDAR's frame; `lidar_to_model` (4, 4) maps them to the model's.
        judged: see `judged_area`.
    """
    objects = [entry for entry in labels.objects if entry.class_name == name]
    centres = transform_points(lidar_to_model, np.array([entry.box[:3] for entry in objects]).reshape(-1, 3))
    near = np.hypot(*centres[:, :2].T) <= REACH
    counted = near & np.array([entry.lidar_points >= LEAST_POINTS for entry in objects], bool)
    taken = np.zeros(len(objects), bool)
    false_alarms = 0
    wanted = detections.labels == (detections.classes.index(name) if name in detections.classes else -1)
    for box in detections.boxes[wanted].astype(np.float64):
        distances = np.where(taken, np.inf, np.hypot(*(centres[:, :2] - box[:2]).T))
        if len(distances) and distances.min() <= MATCH:
            taken[distances.argmin()] = True
        elif np.hypot(box[0], box[1]) <= REACH and judged(box[:3]):
            false_alarms += 1
    return ClassCount(int(counted.sum()), int((counted & taken).sum()), false_alarms)
