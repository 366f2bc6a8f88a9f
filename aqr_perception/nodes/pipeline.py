"""Pipeline of the node: frame request, frame, result, messages."""

import math
import re
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import tf2_ros
from std_msgs.msg import Header

from aqr_perception.byte_cache import ByteCache, text_bytes
from aqr_perception.decoding.message_error import MessageError
from aqr_perception.frame import Frame
from aqr_perception.msg import FrameTiming
from aqr_perception.nodes.diagnostics import Diagnostics
from aqr_perception.nodes.frame_steps import MOST_TEXT_BYTES, FrameSteps, Placed, no_output
from aqr_perception.nodes.input.frame_builder import AssembledFrame
from aqr_perception.nodes.input.frame_request import FrameRequest
from aqr_perception.nodes.input.transforms import FrameTransforms
from aqr_perception.nodes.output.publishers import Publishers
from aqr_perception.nodes.output.track_publisher import TrackPublisher
from aqr_perception.nodes.running_model import RunningModel
from aqr_perception.nodes.stamps import ns_to_stamp
from aqr_perception.nodes.worker import Worker
from aqr_perception.options import DetectionOptions
from aqr_perception.stage_clock import StageClock

if TYPE_CHECKING:
    from aqr_perception.detector import Detector

_SAME_WARNING_PERIOD = 5.0
_STUCK_SECONDS, _STUCK_TIMES = 0.8, 3.0
_SPARE_LATENCY = 1.5
"""Latency to allow for, in units of the one found: frames differ."""

_FAST_PLAYBACK = 1.5
"""Ages in simulated time that are longer than the time that passed by this factor are due to fast playback."""


class _Job(NamedTuple):
    """A request with its detector; another detector may use other sensors.

    Attributes:
        epoch: number of time jumps before the request.
    """

    request: FrameRequest
    detector: "Detector"
    epoch: int


class Pipeline:
    """Thread that turns frame requests into published messages, between `start` and `stop`.

    Args:
        buffer: TF buffer of the node.
        logger: logger of the node.
        clock_ns: the node's clock, in nanoseconds.
        tracks: follows and publishes the objects of the published frames; None: nobody does.

    Attributes:
        options: detection options of the next frame; may be replaced at any time.
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
    ) -> None:
        self._model, self._outputs = model, outputs
        self._diagnostics, self._logger, self._clock_ns = diagnostics, logger, clock_ns
        self._steps = FrameSteps(buffer, outputs, tracks)
        self._epoch = 0
        self._last_jump, self._between_jumps = -math.inf, math.inf
        self._last_output: tuple[int, int] = (-1, 0)
        self.options = options
        self._worker: Worker[_Job] | None = None
        self._stages = StageClock()
        self._last_warned: ByteCache[str, float] = ByteCache(MOST_TEXT_BYTES, lambda kind, _: text_bytes(kind))
        self._traced: set[tuple[str, str, int]] = set()

    def start(self) -> None:
        """Accept requests."""
        self._worker = Worker(
            self._process, self._report_failure, lambda one, other: one.request.supersedes(other.request)
        )

    def stop(self) -> None:
        """Finish the frame in progress; accept no more requests."""
        if self._worker is not None:
            self._worker.stop()
        self._worker = None

    @property
    def running(self) -> bool:
        return self._worker is not None

    @property
    def counts(self) -> tuple[int, int]:
        """Frames processed and frames dropped since the start; zeros while stopped."""
        return (0, 0) if self._worker is None else (self._worker.processed, self._worker.dropped)

    @property
    def stuck(self) -> str:
        """What the frame in progress does if it takes far longer than usual; empty if it does not."""
        worker = self._worker
        if worker is None:
            return ""
        busy, usual = worker.busy_seconds, worker.usual_seconds
        if busy <= max(_STUCK_SECONDS, _STUCK_TIMES * usual):
            return ""
        usually = f"; a frame usually takes {usual:.2f} s" if usual else ""
        return f"stuck: a frame has been in stage {self._stages.current} for {busy:.1f} s{usually}"

    def submit(self, request: FrameRequest) -> None:
        """Queue a request and return at once. While stopped, drop it, to avoid stale frames after the start."""
        if self._worker is not None:
            self._worker.submit(_Job(request, self._model.detector, self._epoch))

    def forget(self) -> None:
        """Drop the waiting requests and the frame in progress, because time jumped back."""
        self._epoch += 1
        now = time.monotonic()
        self._between_jumps, self._last_jump = now - self._last_jump, now
        if self._worker is not None:
            self._worker.forget()

    def _process(self, job: _Job) -> None:
        """Build, detect and publish one frame."""
        request, detector, _ = job
        if self._is_outdated(job):
            return
        stages = self._stages = StageClock()
        with stages.run("assemble", "build"):
            assembled, transforms = self._steps.build(request, detector.image_size[0], detector.placement)
        with stages.run("inspect", "inspect"):
            self._report_sensors(assembled)
        frame = assembled.frame
        if frame is None:
            return
        with stages.run("detect"):
            # Parameters of classes that only an earlier model had stay declared.
            options = self.options.for_classes(detector.classes)
            # The attention by sensor takes time, and only ~/queries tells it.
            options = replace(options, attention=options.attention or self._outputs.wants_queries)
            result = detector.detect(frame, options)
        with stages.run("publish", "publish"):
            placed = self._place(request, frame, assembled, transforms)
            if placed is None or self._is_outdated(job):
                return
            self._steps.publish(placed, result, job.epoch)
            self._last_output = (job.epoch, frame.stamp_ns)
        now = time.monotonic()
        self._diagnostics.add_output(now)
        self._diagnostics.add_age(self._age(request), now)
        self._diagnostics.add_times(stages, now)
        self._publish_timing(frame.stamp_ns, placed.output_frame, stages.seconds, result.seconds)
        self._diagnostics.frames.error = ""

    def _age(self, request: FrameRequest) -> float:
        return request.age(time.monotonic(), self._clock_ns())

    def _is_outdated(self, job: _Job) -> bool:
        """Return whether a frame is too old to be published, or not newer than the last output."""
        request, age = job.request, self._age(job.request)
        if job.epoch != self._epoch or (job.epoch, request.stamp_ns) <= self._last_output:
            if 0 < job.epoch < self._epoch and job.epoch > self._last_output[0]:
                self._diagnostics.frames.error = (
                    f"no frame was finished between two jumps of time: found {self._between_jumps:.1f} s between them, "
                    "needed more than a frame takes; play the recording at a lower rate, or a longer part of it"
                )
                self._warn(self._diagnostics.frames.error)
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
        self._warn(
            f"a frame is dropped: found an age of {age:.2f} s, needed at most max_latency = "
            f"{request.settings.max_latency:g} s; {remedy}"
        )

    def _report_sensors(self, assembled: AssembledFrame) -> None:
        for warning in assembled.warnings:
            self._warn(warning)
        for error in assembled.unexpected:
            self._trace_once(error)
        self._diagnostics.add_frame(assembled.sensors, time.monotonic(), assembled.doubts)
        if assembled.frame is not None:
            self._diagnostics.inspect(assembled.frame, time.monotonic())

    def _place(
        self, request: FrameRequest, frame: Frame, assembled: AssembledFrame, transforms: FrameTransforms
    ) -> Placed | None:
        """Return where a frame's output belongs; None, with a warning, if TF lacks it at the frame's time."""
        try:
            placed = self._steps.place(request, frame, assembled.sensors, transforms)
        except MessageError as error:
            self._diagnostics.frames.error = no_output(request.settings.output_frame, error)
            self._warn(self._diagnostics.frames.error)
            return None
        if placed.doubt:
            self._warn(placed.doubt)
        self._diagnostics.set_frame_doubt("grid", placed.doubt)
        return placed

    def _publish_timing(
        self, stamp_ns: int, frame_id: str, stages: dict[str, float], detector_stages: Mapping[str, float]
    ) -> None:
        total = sum(stages.values())
        seconds = {"assemble": stages["assemble"], **detector_stages, "publish": stages["publish"]}
        timing = FrameTiming(header=Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id))
        timing.stages = list(seconds)
        timing.milliseconds = [1e3 * spent for spent in seconds.values()]
        timing.total_milliseconds = 1e3 * total
        processed, dropped = self.counts
        timing.frames_processed, timing.frames_dropped = processed + 1, dropped
        self._outputs.publish_timing(timing)
        by_stage = ", ".join(f"{stage} {1e3 * spent:.1f}" for stage, spent in seconds.items())
        self._logger.debug(f"frame {stamp_ns / 1e9:.3f}: {1e3 * total:.1f} ms ({by_stage})")

    def _report_failure(self, error: Exception) -> None:
        self._diagnostics.frames.error = f"{self._stages.current}: {type(error).__name__}: {error}"
        self._warn(f"a frame failed and is dropped: {self._diagnostics.frames.error}")
        self._trace_once(error)

    def _trace_once(self, error: Exception) -> None:
        """Log the traceback of an error at debug level; errors of one type from one line are of one kind."""
        *_, (origin, line) = traceback.walk_tb(error.__traceback__)
        kind = (type(error).__name__, origin.f_code.co_filename, line)
        if kind not in self._traced:
            self._traced.add(kind)
            self._logger.debug("".join(traceback.format_exception(error)))

    def _warn(self, text: str) -> None:
        """Log a warning; one that differs only in numbers is repeated every few seconds at most."""
        kind, now = re.sub(r"\d+", "#", text), time.monotonic()
        last = self._last_warned.get(kind)
        if last is None or now - last >= _SAME_WARNING_PERIOD:
            self._last_warned.put(kind, now)
            self._logger.warning(text)


def _at_least(value: float) -> float:
    """Return a round number that is not smaller than a value, with two digits."""
    step: float = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / step) * step
