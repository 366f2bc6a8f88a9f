# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Recorded drive with its ground truth and failures, the content of a report."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from aqr_perception.demo.drive_metrics import Summary, Timeline, summary, timeline
from aqr_perception.demo.failures import Failure
from aqr_perception.demo.recording import FrameRecord, Recording
from aqr_perception.demo.truth import DriveTruth
from aqr_perception.report.report_frame import LIDAR


@dataclass(frozen=True)
class RecordedDrive:
    """A drive, the failures of its sensors, and the node's outputs.

    Attributes:
        seconds: length of the drive.
        bev_range: x_min, y_min, x_max, y_max of the node's BEV pictures in metres, LiDAR frame.
        feature_range: as `bev_range`, of the node's BEV weight maps; None: that of the pictures.
        model_image: width and height of the model's images in pixels; (0, 0) without cameras.
    """

    recording: Recording
    truth: DriveTruth
    failures: Sequence[Failure]
    seconds: float
    bev_range: tuple[float, float, float, float]
    feature_range: tuple[float, float, float, float] | None = None
    model_image: tuple[int, int] = (0, 0)

    @cached_property
    def timeline(self) -> Timeline:
        return timeline(self.recording, self.truth, self.failures)

    @cached_property
    def summary(self) -> Summary:
        return summary(self.timeline, self.truth, self.failures)

    @property
    def sensor_names(self) -> list[str]:
        """Names of the LiDAR and of the cameras, in the node's order where a frame tells it."""
        told = [name for frame in self.recording.frames for name in frame.ages]
        return list(dict.fromkeys([*told, LIDAR, *self.truth.cameras]))

    def active_failures(self, seconds: float) -> dict[str, Failure]:
        """Return the failures at a time of the drive, by sensor."""
        return {failure.sensor: failure for failure in self.failures if failure.is_active(seconds)}

    def sensor_state(self, seconds: float) -> str:
        """Describe the failures at a time of the drive."""
        return ", ".join(map(str, self.active_failures(seconds).values())) or "all sensors working"

    def unanswered(self) -> list[float]:
        """Return the times in seconds of the sweeps without detections."""
        answered = self.frames_by_sweep()
        sweeps = self.truth.sweeps
        return [self.truth.seconds(each.stamp_ns) for index, each in enumerate(sweeps) if index not in answered]

    def frames_by_sweep(self) -> dict[int, FrameRecord]:
        """Return the recorded frames by the index of their sweep in `DriveTruth.sweeps`, in order."""
        frames = ((self.truth.sweep_index(frame.stamp_ns), frame) for frame in self.recording.frames)
        return {index: frame for index, frame in frames if index is not None}
