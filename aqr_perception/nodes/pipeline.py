"""One frame's way through the node: assemble, detect, publish; in a thread of its own."""

import re
import time
import traceback
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header
from tf2_ros.buffer import Buffer

from aqr_perception.detector import Detector
from aqr_perception.msg import FrameTiming
from aqr_perception.nodes.diagnostics import Diagnostics
from aqr_perception.nodes.input.assembler import AssembledFrame, Assembler, FrameRequest
from aqr_perception.nodes.input.message_error import MessageError
from aqr_perception.nodes.input.transforms import FrameTransforms
from aqr_perception.nodes.output.publishers import Publishers
from aqr_perception.nodes.running_model import RunningModel
from aqr_perception.nodes.stamps import ns_to_stamp
from aqr_perception.nodes.worker import Worker
from aqr_perception.options import DetectionOptions

_SAME_WARNING_PERIOD = 5.0


class _Job(NamedTuple):
    """A request, and the detector that it was put together for: another one may see other sensors."""

    request: FrameRequest
    detector: Detector


class Pipeline:
    """Makes of frame requests what the node publishes, between `start` and `stop`.

    Args:
        buffer: of transforms.
        logger: the node's.

    Attributes:
        options: how the next frame is detected; may be replaced at any time.
    """

    def __init__(
        self,
        assembler: Assembler,
        buffer: Buffer,
        model: RunningModel,
        outputs: Publishers,
        diagnostics: Diagnostics,
        logger: Any,
        options: DetectionOptions,
    ) -> None:
        self._assembler, self._buffer, self._model = assembler, buffer, model
        self._outputs, self._diagnostics, self._logger = outputs, diagnostics, logger
        self.options = options
        self._worker: Worker[_Job] | None = None
        self._stage = ""
        self._hopeless: set[tuple[str, str]] = set()
        self._warned: dict[str, float] = {}

    def start(self) -> None:
        """Take requests from now on."""
        self._worker = Worker(
            self._process, self._report_failure, lambda one, other: one.request.supersedes(other.request)
        )

    def stop(self) -> None:
        """Finish the frame under way; take no more."""
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

    def submit(self, request: FrameRequest) -> None:
        """Process a request next; returns at once. While stopped it is forgotten, lest it be old after the start."""
        if self._worker is not None:
            self._worker.submit(_Job(request, self._model.detector))

    def forget(self) -> None:
        """Drop the requests that wait: time jumped back, and they are of the old future."""
        if self._worker is not None:
            self._worker.forget()

    def _process(self, job: _Job) -> None:
        request, detector = job
        start = time.perf_counter()
        self._stage = "assemble"
        assembled = self._assembler.build(request, self._buffer, detector.image_size[0])
        for warning in assembled.warnings:
            self._warn(warning)
        self._diagnostics.add_frame(assembled.sensors, time.monotonic())
        if assembled.frame is None:
            return
        built = time.perf_counter()
        self._stage = "detect"
        result = detector.detect(assembled.frame, self.options)
        detected = time.perf_counter()
        self._stage = "publish"
        to_output, output_frame = self._to_output(request, assembled)
        self._outputs.publish(assembled.frame, result, assembled.sensors, to_output, output_frame)
        end = time.perf_counter()
        seconds = {"assemble": built - start, **result.seconds, "publish": end - detected}
        self._publish_timing(assembled.frame.stamp_ns, output_frame, seconds, end - start)
        self._diagnostics.frame_error = ""

    def _to_output(self, request: FrameRequest, assembled: AssembledFrame) -> tuple[NDArray[np.float64], str]:
        """Return (4, 4) model frame -> output frame and the latter's name; the model frame itself where TF fails."""
        assert assembled.frame is not None
        settings, model_frame = request.settings, assembled.frame.frame_id
        target = settings.output_frame or model_frame
        transforms = FrameTransforms(self._buffer, settings.fixed_frame, settings.transform_wait, self._hopeless)
        stamp_ns = assembled.frame.stamp_ns
        if target != model_frame:
            try:
                return transforms.lookup(target, stamp_ns, model_frame, stamp_ns), target
            except MessageError as error:
                self._warn(f"detections are published in {model_frame}, not in output_frame {target}: {error}")
        return np.eye(4), model_frame

    def _publish_timing(self, stamp_ns: int, frame_id: str, seconds: dict[str, float], total: float) -> None:
        timing = FrameTiming(header=Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id))
        timing.stages = list(seconds)
        timing.milliseconds = [1e3 * spent for spent in seconds.values()]
        timing.total_milliseconds = 1e3 * total
        processed, dropped = self.counts
        timing.frames_processed, timing.frames_dropped = processed + 1, dropped
        self._outputs.publish_timing(timing)
        stages = ", ".join(f"{stage} {1e3 * spent:.1f}" for stage, spent in seconds.items())
        self._logger.debug(f"frame {stamp_ns / 1e9:.3f}: {1e3 * total:.1f} ms ({stages})")

    def _report_failure(self, error: Exception) -> None:
        self._diagnostics.frame_error = f"{self._stage}: {type(error).__name__}: {error}"
        self._warn(f"a frame failed and is left out: {self._diagnostics.frame_error}")
        self._logger.debug("".join(traceback.format_exception(error)))

    def _warn(self, text: str) -> None:
        """Log a warning, but the same one (numbers aside) only every few seconds."""
        kind, now = re.sub(r"\d+", "#", text), time.monotonic()
        if now - self._warned.get(kind, -_SAME_WARNING_PERIOD) >= _SAME_WARNING_PERIOD:
            self._warned[kind] = now
            self._logger.warning(text)
