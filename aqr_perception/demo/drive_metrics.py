"""How well the drive went, in numbers: recall, weights and latency over time, and five figures of it all."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from aqr_perception.demo.failures import Failure
from aqr_perception.demo.recording import BEV, Answer, Recording
from aqr_perception.demo.truth import CameraPose, DriveTruth, TrueObjects
from aqr_perception.frame import CLASSES, Detections

MATCH_DISTANCE = 2.0
"""Metres between centres, seen from above, within which a detection is of an object: nuScenes' middle threshold."""

_RANGES = {"pedestrian": 40.0, "motorcycle": 40.0, "bicycle": 40.0, "traffic_cone": 30.0, "barrier": 30.0}
_FAR = 50.0
"""Metres from the LiDAR to which nuScenes (arXiv:1903.11027, table 8) counts objects: by class, and all others."""

_EDGE = 0.05
"""Seconds: a frame's pictures are up to a LiDAR turn older than it, so that at a failure's edges it is in between."""


def counted(truth: TrueObjects) -> NDArray[np.bool_]:
    """Return which true objects (N,) count: within nuScenes' range of their class, and hit by the LiDAR when intact."""
    ranges = np.array([_RANGES.get(name, _FAR) for name in CLASSES])
    return truth.hit & (np.hypot(truth.boxes[:, 0], truth.boxes[:, 1]) < ranges[truth.labels])


def found(detections: Detections, truth: TrueObjects) -> NDArray[np.bool_]:
    """Return which true objects (N,) were detected: each detection, best first, takes its class's nearest."""
    taken = np.zeros(len(truth.labels), bool)
    if not len(truth.labels) or not len(detections):
        return taken
    distances = cdist(detections.boxes[:, :2], truth.boxes[:, :2])
    distances[detections.labels[:, None] != truth.labels] = np.inf
    for index in np.argsort(-detections.scores, kind="stable"):
        free = np.where(taken, np.inf, distances[index])
        nearest = int(free.argmin())
        taken[nearest] |= free[nearest] <= MATCH_DISTANCE
    return taken


@dataclass(frozen=True)
class Timeline:
    """The drive's course: one entry an answer, NaN where there is nothing to tell.

    Attributes:
        seconds: (N,) after the drive's start.
        lidar_weight, camera_weight: (N,) mean over the detections, each counted by its score.
        watched: the camera that fails, whose own weight is told too; empty where none does.
        watched_weight: (N,) that camera's weight, mean over the detections that it looks at.
        objects, objects_found: (N,) true objects that count, and those detected.
        detections: (N,) their number.
        milliseconds: (N,) latency.
        maps: (N,) mean of the weight map of each camera and of the bird's-eye view, by name.
    """

    seconds: NDArray[np.float64]
    lidar_weight: NDArray[np.float64]
    camera_weight: NDArray[np.float64]
    watched: str
    watched_weight: NDArray[np.float64]
    objects: NDArray[np.int64]
    objects_found: NDArray[np.int64]
    detections: NDArray[np.int64]
    milliseconds: NDArray[np.float64]
    maps: Mapping[str, NDArray[np.float64]]

    @property
    def recall(self) -> NDArray[np.float64]:
        """(N,) share of the objects that were found; NaN where there were none."""
        return np.where(self.objects > 0, self.objects_found / np.maximum(self.objects, 1), np.nan)

    def recall_during(self, holds: NDArray[np.bool_]) -> float:
        """Return the share of objects found, over all frames of a time (N,); NaN where there were none."""
        objects = self.objects[holds].sum()
        return float(self.objects_found[holds].sum() / objects) if objects else math.nan


def timeline(recording: Recording, truth: DriveTruth, failures: Sequence[Failure]) -> Timeline:
    """Compare a recording with the truth, frame by frame; answers to no moment of the drive are left out."""
    watched = next((failure.sensor for failure in failures if failure.sensor in truth.cameras), "")
    answers, moments = [], []
    for answer in recording.answers:
        moment = truth.moment_of(answer.stamp_ns)
        if moment is not None:
            answers.append(answer)
            moments.append(truth.moments[moment])
    matches = [
        (counted(moment), found(answer.detections, moment)) for answer, moment in zip(answers, moments, strict=True)
    ]
    return Timeline(
        seconds=np.array([truth.seconds(answer.stamp_ns) for answer in answers], np.float64),
        lidar_weight=_column(_mean(answer.detections.lidar_weight, answer.detections) for answer in answers),
        camera_weight=_column(_mean(answer.detections.camera_weight, answer.detections) for answer in answers),
        watched=watched,
        watched_weight=_column(_camera_weight(answer, watched, truth.cameras) for answer in answers),
        objects=np.array([counts.sum() for counts, _ in matches], np.int64),
        objects_found=np.array([(counts & hit).sum() for counts, hit in matches], np.int64),
        detections=np.array([len(answer.detections) for answer in answers], np.int64),
        milliseconds=_column(math.nan if answer.milliseconds is None else answer.milliseconds for answer in answers),
        maps={
            name: _column(answer.map_means.get(name, math.nan) for answer in answers) for name in (BEV, *truth.cameras)
        },
    )


def _column(values: Iterable[float]) -> NDArray[np.float64]:
    return np.array(list(values), np.float64)


def _mean(weights: NDArray[np.float32], detections: Detections, chosen: NDArray[np.bool_] | None = None) -> float:
    """Return the mean weight of some detections, each counted by its score; NaN without any."""
    scores = detections.scores if chosen is None else detections.scores * chosen
    total = float(scores.sum())
    return float((weights * scores).sum()) / total if total > 0 else math.nan


def _camera_weight(answer: Answer, camera: str, cameras: Mapping[str, CameraPose]) -> float:
    if camera not in answer.camera_names:
        return math.nan
    weights = answer.detections.camera_weights[:, answer.camera_names.index(camera)]
    return _mean(weights, answer.detections, cameras[camera].sees(answer.detections.boxes))


@dataclass(frozen=True)
class Summary:
    """The drive in five figures; NaN where there is nothing to tell.

    Attributes:
        answered, frames: moments of the drive that the node answered, of how many.
        recall: share of the objects found while all sensors worked.
        recall_failing: the same during each failure.
        watched: the camera that failed.
        weight_before, weight_failing: its mean weight until it failed, and while it did.
        median_milliseconds: latency.
    """

    answered: int
    frames: int
    recall: float
    recall_failing: Mapping[Failure, float]
    watched: str
    weight_before: float
    weight_failing: float
    median_milliseconds: float

    def lines(self) -> list[tuple[str, str]]:
        """Return five figures for people: what, and how much."""
        failing = ", ".join(f"{_number(recall)} with {failure}" for failure, recall in self.recall_failing.items())
        return [
            ("Frames answered", f"{self.answered} of {self.frames}"),
            ("Objects found, all sensors working", _number(self.recall)),
            ("Objects found, sensors failing", failing or "no sensor failed"),
            (
                f"Weight of camera {self.watched or '(none)'}",
                f"{_number(self.weight_before)} before it fails, {_number(self.weight_failing)} while it does",
            ),
            ("Median time from sweep to detections", f"{_number(self.median_milliseconds, 0)} ms"),
        ]


def summary(course: Timeline, truth: DriveTruth, failures: Sequence[Failure]) -> Summary:
    """Return the figures of a drive's course."""
    during = {failure: _during(course, failure) for failure in failures}
    intact = np.all([np.ones(len(course.seconds), bool), *(_apart(course, failure) for failure in failures)], axis=0)
    blinded = next((failure for failure in failures if failure.sensor == course.watched), None)
    nothing = np.zeros(len(course.seconds), bool)
    return Summary(
        answered=len({truth.moment_of(truth.start_ns + round(seconds * 1e9)) for seconds in course.seconds}),
        frames=len(truth.moments),
        recall=course.recall_during(intact),
        recall_failing={failure: course.recall_during(holds) for failure, holds in during.items()},
        watched=course.watched,
        weight_before=_mean_of(course.watched_weight, course.seconds < blinded.begin if blinded else nothing),
        weight_failing=_mean_of(course.watched_weight, during[blinded] if blinded else nothing),
        median_milliseconds=_median_of(course.milliseconds),
    )


def _during(course: Timeline, failure: Failure) -> NDArray[np.bool_]:
    return (course.seconds > failure.begin + _EDGE) & (course.seconds < failure.end)


def _apart(course: Timeline, failure: Failure) -> NDArray[np.bool_]:
    return (course.seconds < failure.begin) | (course.seconds > failure.end + _EDGE)


def _mean_of(values: NDArray[np.float64], chosen: NDArray[np.bool_]) -> float:
    known = values[chosen & ~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _median_of(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else math.nan


def _number(value: float, digits: int = 2) -> str:
    return "unknown" if math.isnan(value) else f"{value:.{digits}f}"
