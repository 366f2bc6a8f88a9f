# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Curves and phases of a report: numbers over time, computed from the frames one by one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aqr_perception.report.report_frame import (
    LIDAR,
    ReportDetection,
    ReportFrame,
    ReportPhase,
    ReportSensor,
    plain_numbers,
)

OK, DOUBTED, FAILING, LEFT_OUT, UNKNOWN = "ok", "doubted", "failing", "left out", "unknown"
"""States of a sensor in a frame."""


class DriveCurves:
    """Numbers of all frames, one entry per frame, in the order of `add`."""

    def __init__(self) -> None:
        self.stamps: list[int] = []
        self.answered: list[bool] = []
        self._weights: list[dict[str, float]] = []
        self._attention: list[dict[str, float]] = []
        self._states: list[dict[str, tuple[str, str]]] = []
        self._objects: list[tuple[int, int] | None] = []
        self._latency: list[float] = []
        self._counts: list[int] = []
        self.sensors: list[str] = []

    def add(self, frame: ReportFrame) -> None:
        """Add the numbers of a frame."""
        self.stamps.append(frame.stamp_ns)
        self.answered.append(not frame.unanswered)
        self._weights.append(mean_weights(frame.detections))
        self._attention.append(mean_attention(frame.detections))
        self._states.append({sensor.name: sensor_state(sensor) for sensor in frame.sensors})
        truth = frame.truth
        self._objects.append(None if truth is None else (sum(each.detected for each in truth), len(truth)))
        self._latency.append(math.nan if frame.latency is None else frame.latency)
        self._counts.append(len(frame.detections))
        self.sensors += [sensor.name for sensor in frame.sensors if sensor.name not in self.sensors]

    def as_data(self) -> dict[str, Any]:
        """Return the curves as plain data; None for unknown numbers."""
        names = self.sensors
        return {
            "weights": {name: plain_numbers([each.get(name, math.nan) for each in self._weights]) for name in names},
            "attention": {name: plain_numbers([each.get(name, math.nan) for each in self._attention]) for name in names}
            if any(self._attention)
            else {},
            "states": {name: [each.get(name, (UNKNOWN, ""))[0] for each in self._states] for name in names},
            "detections": self._counts,
            "recall": plain_numbers([self._recall([index]) for index in range(len(self.stamps))])
            if any(self._objects)
            else [],
            "latency": plain_numbers(self._latency, 1),
            "answered": self.answered,
        }

    def phase_rows(self, phases: Sequence[ReportPhase]) -> list[dict[str, Any]]:
        """Return a row of figures for each phase."""
        rows = []
        for phase in phases:
            inside = [index for index, stamp_ns in enumerate(self.stamps) if phase.contains(stamp_ns)]
            answered = [index for index in inside if self.answered[index]]
            # The other sensors' weights in the phase, and the failing ones' own.
            means = {name: self._mean_weight(name, answered) for name in self.sensors}
            cameras = [means[name] for name in self.sensors if not name.startswith(LIDAR) and name not in phase.sensors]
            failing = [means[name] for name in phase.sensors if name in means]
            numbers = plain_numbers(
                [
                    self._recall(inside),
                    _mean([value for name, value in means.items() if name.startswith(LIDAR)]),
                    _mean(cameras),
                    _mean(failing),
                    _median([self._latency[index] for index in answered]),
                ]
            )
            keys = ("recall", "lidar_weight", "camera_weight", "failing_weight", "latency")
            rows.append(
                {
                    "name": phase.name,
                    "begin_ns": str(phase.begin_ns),
                    "sensors": list(phase.sensors),
                    "frames": len(inside),
                    "answered": len(answered),
                    "objects": sum(objects[1] for index in inside if (objects := self._objects[index]) is not None),
                    **dict(zip(keys, numbers, strict=True)),
                }
            )
        return rows

    def _mean_weight(self, sensor: str, indices: Sequence[int]) -> float:
        return _mean([self._weights[index].get(sensor, math.nan) for index in indices])

    def _recall(self, indices: Sequence[int]) -> float:
        """Return the share of true objects that are detected, over some frames; NaN without objects."""
        known = [objects for index in indices if (objects := self._objects[index]) is not None]
        total = sum(count for _, count in known)
        return sum(found for found, _ in known) / total if total else math.nan


def mean_weights(detections: Sequence[ReportDetection]) -> dict[str, float]:
    """Return the mean weight of each sensor, weighted by score; of a camera, over the detections whose window it sees.

    Without windows, a camera's mean is over all detections with a weight of it other than 0, because the weight of a
    camera that does not see an object is 0.
    """
    sums: dict[str, list[float]] = {}
    for each in detections:
        _accumulate(sums, LIDAR, each.lidar_weight, each.score)
        for name, weight in each.camera_weights.items():
            if name in each.windows if each.windows else weight:
                _accumulate(sums, name, weight, each.score)
    return _means(sums)


def mean_attention(detections: Sequence[ReportDetection]) -> dict[str, float]:
    """Return the mean share of attention on each sensor over all detections, weighted by score."""
    sums: dict[str, list[float]] = {}
    for each in detections:
        for name, share in each.attention.items():
            _accumulate(sums, name, share, each.score)
    return _means(sums)


def sensor_state(sensor: ReportSensor) -> tuple[str, str]:
    """Return a sensor's state in a frame and its explanation; what the node sees comes before what is only known."""
    if not sensor.used:
        return LEFT_OUT, sensor.reason or sensor.failure
    if sensor.doubt:
        return DOUBTED, sensor.doubt
    return (FAILING, sensor.failure) if sensor.failure else (OK, "")


def _accumulate(sums: dict[str, list[float]], name: str, value: float, score: float) -> None:
    total = sums.setdefault(name, [0.0, 0.0])
    total[0] += value * score
    total[1] += score


def _means(sums: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: total / score for name, (total, score) in sums.items() if score > 0}


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.median(known)) if known else math.nan
