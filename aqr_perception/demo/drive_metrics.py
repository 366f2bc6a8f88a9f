# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Metrics of a recorded drive: recall, sensor weights and latency over time, and their summary."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from aqr_perception.demo.failures import Failure
from aqr_perception.demo.recording import BEV, FrameRecord, Recording
from aqr_perception.demo.truth import CameraGeometry, DriveTruth, TrueObjects
from aqr_perception.frame import Detections

MATCH_DISTANCE = 2.0
"""Largest horizontal distance in metres between a detection and its object: the third of nuScenes' four thresholds."""

_CLASS_RANGES = {"pedestrian": 40.0, "motorcycle": 40.0, "bicycle": 40.0, "traffic_cone": 30.0, "barrier": 30.0}
_DEFAULT_RANGE = 50.0
"""Evaluation range in metres of all other classes (nuScenes, arXiv:1903.11027, table 8)."""

_TRANSITION_SECONDS = 0.05
"""Images are up to one sweep older than their frame, so frames this near (s) to a failure's edge are ambiguous."""


def evaluated_objects(truth: TrueObjects) -> NDArray[np.bool_]:
    """Return the mask (N,) of the evaluated objects: in nuScenes' range of their class and hit by the intact LiDAR."""
    ranges = np.array([_CLASS_RANGES.get(name, _DEFAULT_RANGE) for name in truth.classes])
    return truth.hit & (np.hypot(truth.boxes[:, 0], truth.boxes[:, 1]) < ranges[truth.labels])


def detected_objects(detections: Detections, truth: TrueObjects) -> NDArray[np.bool_]:
    """Return the mask (N,) of the detected true objects.

    Detections, highest score first, match the nearest free object of their class within `MATCH_DISTANCE`.
    """
    detected = np.zeros(len(truth.labels), bool)
    if not len(truth.labels) or not len(detections):
        return detected
    distances = cdist(detections.boxes[:, :2], truth.boxes[:, :2])
    # By name: both lists of classes may be longer than nuScenes' ten.
    found, true = np.array(detections.classes)[detections.labels], np.array(truth.classes)[truth.labels]
    distances[found[:, None] != true] = np.inf
    for index in np.argsort(-detections.scores, kind="stable"):
        free_distances = np.where(detected, np.inf, distances[index])
        nearest = int(free_distances.argmin())
        detected[nearest] |= free_distances[nearest] <= MATCH_DISTANCE
    return detected


@dataclass(frozen=True)
class Timeline:
    """Metrics over time, one entry per frame; NaN for unknown values.

    Attributes:
        seconds: (N,) time since the start of the drive.
        lidar_weight, camera_weight: (N,) mean over the detections, weighted by score.
        failing_camera: name of the first camera with a failure; empty if no camera fails.
        failing_camera_weight: (N,) mean weight of that camera over the detections in its view.
        objects, objects_detected: (N,) number of evaluated objects, and of those detected.
        milliseconds: (N,) latency.
        map_means: (N,) mean of the weight map of each camera and of the BEV, by name.
        signed: whether weights and maps may be negative.
    """

    seconds: NDArray[np.float64]
    lidar_weight: NDArray[np.float64]
    camera_weight: NDArray[np.float64]
    failing_camera: str
    failing_camera_weight: NDArray[np.float64]
    objects: NDArray[np.int64]
    objects_detected: NDArray[np.int64]
    milliseconds: NDArray[np.float64]
    map_means: Mapping[str, NDArray[np.float64]]
    signed: bool = False

    @property
    def recall(self) -> NDArray[np.float64]:
        """(N,) share of the objects that are detected; NaN without objects."""
        return np.where(self.objects > 0, self.objects_detected / np.maximum(self.objects, 1), np.nan)

    def recall_in(self, frames: NDArray[np.bool_]) -> float:
        """Return the share of detected objects over a selection of frames (N,); NaN without objects."""
        objects = self.objects[frames].sum()
        return float(self.objects_detected[frames].sum() / objects) if objects else math.nan


def timeline(recording: Recording, truth: DriveTruth, failures: Sequence[Failure]) -> Timeline:
    """Compare a recording with the ground truth, frame by frame; frames that match no sweep are left out."""
    pairs = [(frame, truth.sweep_at(frame.stamp_ns)) for frame in recording.frames]
    matched = [(frame, objects) for frame, objects in pairs if objects is not None]
    frames = [frame for frame, _ in matched]
    evaluated = [evaluated_objects(objects) for _, objects in matched]
    detected = [detected_objects(frame.detections, objects) for frame, objects in matched]
    camera = next((failure.sensor for failure in failures if failure.sensor in truth.cameras), "")
    return Timeline(
        seconds=_column(truth.seconds(frame.stamp_ns) for frame in frames),
        lidar_weight=_column(_mean_weight(frame.detections.lidar_weight, frame.detections.scores) for frame in frames),
        camera_weight=_column(
            _mean_weight(frame.detections.camera_weight, frame.detections.scores) for frame in frames
        ),
        failing_camera=camera,
        failing_camera_weight=_column(_weight_of_camera(frame, camera, truth.cameras) for frame in frames),
        objects=np.array([mask.sum() for mask in evaluated], np.int64),
        objects_detected=np.array([(a & b).sum() for a, b in zip(evaluated, detected, strict=True)], np.int64),
        milliseconds=_column(math.nan if frame.milliseconds is None else frame.milliseconds for frame in frames),
        map_means={
            name: _column(frame.map_means.get(name, math.nan) for frame in frames) for name in (BEV, *truth.cameras)
        },
        signed=recording.signed,
    )


def _column(values: Iterable[float]) -> NDArray[np.float64]:
    return np.array(list(values), np.float64)


def _mean_weight(weights: NDArray[np.float32], scores: NDArray[np.float32]) -> float:
    """Return the score-weighted mean of weights (N,); NaN without detections."""
    total = float(scores.sum())
    return float((weights * scores).sum()) / total if total > 0 else math.nan


def _weight_of_camera(frame: FrameRecord, camera: str, cameras: Mapping[str, CameraGeometry]) -> float:
    """Return a camera's mean weight over the detections in its view; NaN if the frame does not use the camera."""
    if camera not in frame.camera_names:
        return math.nan
    detections = frame.detections
    weights = detections.camera_weights[:, frame.camera_names.index(camera)]
    return _mean_weight(weights, detections.scores * cameras[camera].in_view(detections.boxes))


@dataclass(frozen=True)
class Summary:
    """Five figures of a drive; NaN for unknown values.

    Attributes:
        sweeps_processed, sweeps: number of sweeps with detections, and of all sweeps.
        recall: share of detected objects while all sensors work.
        recall_by_failure: share of detected objects during each failure.
        failing_camera: name of the first camera with a failure; empty if no camera failed.
        weight_before, weight_during: mean weight of that camera before and during its failure.
        median_milliseconds: median latency.
    """

    sweeps_processed: int
    sweeps: int
    recall: float
    recall_by_failure: Mapping[Failure, float]
    failing_camera: str
    weight_before: float
    weight_during: float
    median_milliseconds: float

    def lines(self) -> list[tuple[str, str]]:
        """Return the five figures as text: a label and a value each."""
        failing = ", ".join(f"{_number(recall)} with {failure}" for failure, recall in self.recall_by_failure.items())
        return [
            ("Sweeps processed", f"{self.sweeps_processed} of {self.sweeps}"),
            ("Recall, all sensors working", _number(self.recall)),
            ("Recall, sensors failing", failing or "no sensor failed"),
            (
                f"Weight of camera {self.failing_camera or '(none)'}",
                f"{_number(self.weight_before)} before its failure, {_number(self.weight_during)} during it",
            ),
            ("Median latency, sweep to detections", f"{_number(self.median_milliseconds, 0)} ms"),
        ]


def summary(timeline: Timeline, truth: DriveTruth, failures: Sequence[Failure]) -> Summary:
    """Return the summary of a drive."""
    seconds = timeline.seconds
    during = {failure: _during(seconds, failure) for failure in failures}
    intact = np.all([np.ones(len(seconds), bool), *(_outside(seconds, failure) for failure in failures)], axis=0)
    weight_before, weight_during = _failing_camera_weights(timeline, failures)
    return Summary(
        sweeps_processed=len({truth.sweep_index(truth.start_ns + round(time * 1e9)) for time in seconds}),
        sweeps=len(truth.sweeps),
        recall=timeline.recall_in(intact),
        recall_by_failure={failure: timeline.recall_in(frames) for failure, frames in during.items()},
        failing_camera=timeline.failing_camera,
        weight_before=weight_before,
        weight_during=weight_during,
        median_milliseconds=_median(timeline.milliseconds),
    )


def _failing_camera_weights(timeline: Timeline, failures: Sequence[Failure]) -> tuple[float, float]:
    """Return the failing camera's mean weight before and during its failure; NaN if no camera fails."""
    failure = next((failure for failure in failures if failure.sensor == timeline.failing_camera), None)
    if failure is None:
        return math.nan, math.nan
    weights, seconds = timeline.failing_camera_weight, timeline.seconds
    return _mean(weights[seconds < failure.begin]), _mean(weights[_during(seconds, failure)])


def _during(seconds: NDArray[np.float64], failure: Failure) -> NDArray[np.bool_]:
    return (seconds > failure.begin + _TRANSITION_SECONDS) & (seconds < failure.end)


def _outside(seconds: NDArray[np.float64], failure: Failure) -> NDArray[np.bool_]:
    return (seconds < failure.begin) | (seconds > failure.end + _TRANSITION_SECONDS)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _median(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else math.nan


def _number(value: float, digits: int = 2) -> str:
    return "unknown" if math.isnan(value) else f"{value:.{digits}f}"
