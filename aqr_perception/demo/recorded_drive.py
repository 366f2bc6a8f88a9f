"""A drive that was played: what a report is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from aqr_perception.demo.failures import Failure
from aqr_perception.demo.figures import Summary, Timeline, summary, timeline
from aqr_perception.demo.recording import Answer, Recording
from aqr_perception.demo.truth import DriveTruth


@dataclass(frozen=True)
class PlayedDrive:
    """A drive, the sensors that failed in it, and what the node said of it.

    Attributes:
        seconds: its length.
        bev_range: x_min, y_min, x_max, y_max of the model's bird's-eye view in metres, LiDAR frame.
    """

    recording: Recording
    truth: DriveTruth
    failures: Sequence[Failure]
    seconds: float
    bev_range: tuple[float, float, float, float]

    @cached_property
    def course(self) -> Timeline:
        return timeline(self.recording, self.truth, self.failures)

    @cached_property
    def summary(self) -> Summary:
        return summary(self.course, self.truth, self.failures)

    def failing(self, seconds: float) -> dict[str, Failure]:
        """Return the failures at a time, by sensor."""
        return {failure.sensor: failure for failure in self.failures if failure.holds(seconds)}

    def state(self, seconds: float) -> str:
        """Say which sensors fail at a time."""
        return ", ".join(str(failure) for failure in self.failing(seconds).values()) or "all sensors working"

    def answers_by_moment(self) -> dict[int, Answer]:
        """Return the answers that show a moment of the drive, by its index, in order."""
        moments = ((self.truth.moment_of(answer.stamp_ns), answer) for answer in self.recording.answers)
        return {moment: answer for moment, answer in moments if moment is not None}
