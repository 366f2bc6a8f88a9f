# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pipeline of the node: frame request, frame, result, messages."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import tf2_ros
from std_msgs.msg import Header

from aqr_perception.decoding.message_error import MessageError
from aqr_perception.frame import Frame, Result
from aqr_perception.msg import FrameTiming
from aqr_perception.nodes.diagnostics import Diagnostics
from aqr_perception.nodes.flow.frame_faults import FrameFaults
from aqr_perception.nodes.flow.frame_line import FrameLine, Stage
from aqr_perception.nodes.flow.pipelining import Pipelining, is_on
from aqr_perception.nodes.frame_steps import FrameSteps, Placed, no_output
from aqr_perception.nodes.input.frame_builder import AssembledFrame
from aqr_perception.nodes.input.frame_request import FrameRequest
from aqr_perception.nodes.input.transforms import FrameTransforms
from aqr_perception.nodes.output.publishers import Publishers
from aqr_perception.nodes.output.track_publisher import TrackPublisher
from aqr_perception.nodes.running_model import RunningModel
from aqr_perception.nodes.stamps import ns_to_stamp
from aqr_perception.options import DetectionOptions
from aqr_perception.stage_clock import StageClock

if TYPE_CHECKING:
    from aqr_perception.detector import Detector

_STUCK_SECONDS, _STUCK_TIMES = 0.8, 3.0
_SPARE_LATENCY = 1.5
"""Latency to allow for, in units of the one found: frames differ."""

_FAST_PLAYBACK = 1.5
"""Ages in simulated time that are longer than the time that passed by this factor are due to fast playback."""


@dataclass(eq=False)
class _Job:
    """A request with its detector, as another one may use other sensors, and what the stages have made of it.

    Attributes:
        epoch: number of time jumps before the request.
        number: number of requests before it.
        is_beside: whether other frames may be in flight.
        stages: times of the stages.
        begun: when its work began, in seconds of a monotonic clock.
    """

    request: FrameRequest
    detector: "Detector"
    epoch: int
    number: int
    is_beside: bool
    stages: StageClock = field(default_factory=StageClock)
    begun: float = math.nan
    assembled: AssembledFrame | None = None
    transforms: FrameTransforms | None = None
    result: Result | None = None

    def supersedes(self, other: "_Job") -> bool:
        return self.request.supersedes(other.request)

    def follows(self, other: "_Job") -> bool:
        """Whether this frame is newer, so that it cannot be out of order whatever becomes of the other one."""
        return (self.epoch, self.request.stamp_ns) > (other.epoch, other.request.stamp_ns)


class Pipeline:
    """Threads that turn frame requests into published messages, between `start` and `stop`.

    The detection has a thread of its own. With `pipelining`, the next frame is built and the last one is published
    beside it, in two more; otherwise, the thread works on one frame from its start to its end.

    Args:
        buffer: TF buffer of the node.
        logger: logger of the node.
        clock_ns: the node's clock, in nanoseconds.
        tracks: follows and publishes the objects of the published frames; None: nobody does.

    Attributes:
        options: detection options of the next frame; may be replaced at any time.
        pipelining: applies to the next request; may be replaced at any time.
    """

    def __init__(
        self,
        buffer: tf2_ros.Buffer,
        model: RunningModel,
        outputs: Publishers,
        diagnostics: Diagnostics,
        logger: Any,
        options: DetectionOptions,
        clock_ns: Callable[[], int] = time.time_ns,
        tracks: TrackPublisher | None = None,
        pipelining: Pipelining = "off",
    ) -> None:
        self._model, self._outputs = model, outputs
        self._diagnostics, self._logger, self._clock_ns = diagnostics, logger, clock_ns
        self._steps = FrameSteps(buffer, outputs, tracks)
        self._epoch = self._submitted = 0
        self._last_jump, self._between_jumps = -math.inf, math.inf
        self._last_output: tuple[int, int] = (-1, 0)
        self.options, self.pipelining = options, pipelining
        self._line: FrameLine[_Job] | None = None
        self._faults = FrameFaults(diagnostics.frames, logger)

    def start(self) -> None:
        """Accept requests."""
        stages = (
            Stage("aqr_build", self._build),
            Stage("aqr_worker", self._detect),
            Stage("aqr_publish", self._publish),
        )
        self._line = FrameLine(stages, self._report_failure, _Job.supersedes, _Job.follows, main=1)

    def stop(self) -> None:
        """Finish the frame in progress; accept no more requests."""
        if self._line is not None:
            self._line.stop()
        self._line = None

    @property
    def running(self) -> bool:
        return self._line is not None

    @property
    def counts(self) -> tuple[int, int]:
        """Frames processed and frames dropped since the start; zeros while stopped."""
        return (0, 0) if self._line is None else self._line.counts

    @property
    def stuck(self) -> str:
        """What a frame in progress does if it takes far longer than usual; empty if it does not."""
        line = self._line
        progress = None if line is None else line.progress
        if line is None or progress is None:
            return ""
        usual = line.usual_seconds
        if progress.seconds <= max(_STUCK_SECONDS, _STUCK_TIMES * usual):
            return ""
        usually = f"; a frame usually takes {usual:.2f} s" if usual else ""
        return f"stuck: a frame has been in stage {progress.item.stages.current} for {progress.seconds:.1f} s{usually}"

    def submit(self, request: FrameRequest) -> None:
        """Queue a request and return at once. While stopped, drop it, to avoid stale frames after the start."""
        if self._line is not None:
            detector = self._model.detector
            is_beside = is_on(self.pipelining, str(detector.device))
            self._submitted += 1
            self._line.submit(_Job(request, detector, self._epoch, self._submitted, is_beside), is_beside)

    def forget(self) -> None:
        """Drop the waiting requests and the frames in progress, because time jumped back."""
        self._epoch += 1
        now = time.monotonic()
        self._between_jumps, self._last_jump = now - self._last_jump, now
        if self._line is not None:
            self._line.forget()

    # --- Stages: each works on one frame at a time, maybe in a thread of its own ------------------------------------

    def _build(self, job: _Job) -> bool:
        """Build a frame; return whether there is one."""
        if self._is_outdated(job):
            return False
        job.begun = time.monotonic()
        request, detector = job.request, job.detector
        with job.stages.run("assemble", "build"):
            job.assembled, job.transforms = self._steps.build(request, detector.image_size[0], detector.placement)
        with job.stages.run("inspect", "inspect"):
            self._report_sensors(job.assembled)
        return job.assembled.frame is not None

    def _detect(self, job: _Job) -> bool:
        """Detect the objects of a frame, unless it became too old while it waited."""
        assert job.assembled is not None and job.assembled.frame is not None  # `_build` made it
        if self._is_outdated(job):
            return False
        detector = job.detector
        with job.stages.run("detect"):
            # Parameters of classes that only an earlier model had stay declared.
            options = self.options.for_classes(detector.classes)
            # The attention by sensor takes time, and only ~/queries tells it.
            options = replace(options, attention=options.attention or self._outputs.wants_queries)
            job.result = detector.detect(job.assembled.frame, options)
        return True

    def _publish(self, job: _Job) -> bool:
        """Publish the result of a frame, unless it is outdated or without a place."""
        request, stages, assembled, result = job.request, job.stages, job.assembled, job.result
        assert assembled is not None and assembled.frame is not None and job.transforms is not None and result
        frame = assembled.frame
        with stages.run("publish", "publish"):
            placed = self._place(job, frame, assembled, job.transforms)
            if placed is None or self._is_outdated(job):
                return False
            self._steps.publish(placed, result, job.epoch)
            self._last_output = (job.epoch, frame.stamp_ns)
        now = time.monotonic()
        self._diagnostics.add_output(now)
        self._diagnostics.add_age(self._age(request), now)
        self._diagnostics.add_times(stages, now)
        waited = now - job.begun - sum(stages.seconds.values()) if job.is_beside else 0.0
        self._publish_timing(frame.stamp_ns, placed.output_frame, stages.seconds, result.seconds, waited)
        self._faults.succeed(job.number)
        return True

    # --- What the stages share --------------------------------------------------------------------------------------

    def _age(self, request: FrameRequest) -> float:
        return request.age(time.monotonic(), self._clock_ns())

    def _is_outdated(self, job: _Job) -> bool:
        """Return whether a frame is too old to be published, or not newer than the last output."""
        request, age = job.request, self._age(job.request)
        if job.epoch != self._epoch or (job.epoch, request.stamp_ns) <= self._last_output:
            if 0 < job.epoch < self._epoch and job.epoch > self._last_output[0]:
                self._faults.fail(
                    job.number,
                    f"no frame was finished between two jumps of time: found {self._between_jumps:.1f} s between them, "
                    "needed more than a frame takes; play the recording at a lower rate, or a longer part of it",
                )
            self._diagnostics.count_out_of_order()
            return True
        if age > request.settings.max_latency:
            self._diagnostics.add_late(age, request.settings.max_latency, time.monotonic())
            self._warn_late(request, age)
            return True
        return False

    def _warn_late(self, request: FrameRequest, age: float) -> None:
        """Warn that a frame is too old, with the value of max_latency that would fit."""
        waited = time.monotonic() - request.received
        remedy = f"set max_latency to {_at_least(_SPARE_LATENCY * age):g}, or use a faster model or device"
        if request.in_clock_time and age > _FAST_PLAYBACK * waited:
            remedy += f", or play the recording more slowly: {age:.2f} s of it took {waited:.2f} s"
        self._faults.warn(
            f"a frame is dropped: found an age of {age:.2f} s, needed at most max_latency = "
            f"{request.settings.max_latency:g} s; {remedy}"
        )

    def _report_sensors(self, assembled: AssembledFrame) -> None:
        for warning in assembled.warnings:
            self._faults.warn(warning)
        for error in assembled.unexpected:
            self._faults.trace_once(error)
        self._diagnostics.add_frame(assembled.sensors, time.monotonic(), assembled.doubts)
        if assembled.frame is not None:
            self._diagnostics.inspect(assembled.frame, time.monotonic())

    def _place(self, job: _Job, frame: Frame, assembled: AssembledFrame, transforms: FrameTransforms) -> Placed | None:
        """Return where a frame's output belongs; None, with a warning, if TF lacks it at the frame's time."""
        try:
            placed = self._steps.place(job.request, frame, assembled.sensors, transforms)
        except MessageError as error:
            self._faults.fail(job.number, no_output(job.request.settings.output_frame, error))
            return None
        if placed.doubt:
            self._faults.warn(placed.doubt)
        self._diagnostics.set_frame_doubt("grid", placed.doubt)
        return placed

    def _publish_timing(
        self,
        stamp_ns: int,
        frame_id: str,
        stages: Mapping[str, float],
        detector_stages: Mapping[str, float],
        waited: float,
    ) -> None:
        """Publish what the stages took.

        Args:
            waited: seconds for which the frame waited between them.
        """
        total = sum(stages.values()) + waited
        wait = {"wait": waited} if waited else {}
        seconds = {"assemble": stages["assemble"], **wait, **detector_stages, "publish": stages["publish"]}
        timing = FrameTiming(header=Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id))
        timing.stages = list(seconds)
        timing.milliseconds = [1e3 * spent for spent in seconds.values()]
        timing.total_milliseconds = 1e3 * total
        processed, dropped = self.counts
        timing.frames_processed, timing.frames_dropped = processed + 1, dropped
        self._outputs.publish_timing(timing)
        by_stage = ", ".join(f"{stage} {1e3 * spent:.1f}" for stage, spent in seconds.items())
        self._logger.debug(f"frame {stamp_ns / 1e9:.3f}: {1e3 * total:.1f} ms ({by_stage})")

    def _report_failure(self, job: _Job, error: Exception) -> None:
        text = f"{job.stages.current}: {type(error).__name__}: {error}"
        self._faults.fail(job.number, text, f"a frame failed and is dropped: {text}")
        self._faults.trace_once(error)


def _at_least(value: float) -> float:
    """Return a round number that is not smaller than a value, with two digits."""
    step: float = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / step) * step
