# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A pipeline of the node whose detectors and outputs record what reaches them."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import tf2_ros
from builtin_interfaces.msg import Time

from aqr_perception.frame import CLASSES, Frame
from aqr_perception.nodes.diagnostics import Diagnostics
from aqr_perception.nodes.flow.pipelining import Pipelining
from aqr_perception.nodes.input.frame_request import AssemblerSettings, FrameRequest
from aqr_perception.nodes.pipeline import Pipeline
from aqr_perception.options import DetectionOptions
from helpers.sensor_messages import START, sweep
from helpers.waiting import wait_for

POINTS = [[1.0, 2.0, 3.0, 4.0]]


def request(
    points: list[list[float]] = POINTS, names: str = "xyzi", stamp_ns: int = START, **changes: Any
) -> FrameRequest:
    """Return a request of one sweep."""
    settings = AssemblerSettings(**({"lidar_topic": "/points", "transform_wait": 0.0} | changes))
    return FrameRequest(stamp_ns, "lidar", (sweep(points, stamp_ns, names),), (), settings)


def live(stamp_ns: int, max_latency: float = 1.0) -> FrameRequest:
    """Return a request whose stamp is a time of the node's clock."""
    return replace(request(stamp_ns=stamp_ns, max_latency=max_latency), in_clock_time=True)


class Stage:
    """A running pipeline whose detectors and outputs record what reaches them."""

    def __init__(self, pipelining: Pipelining) -> None:
        self.published: list[tuple] = []
        self.timings: list[Any] = []
        self.warnings: list[str] = []
        self.debug: list[str] = []
        self.detected: list[tuple[str, int]] = []
        self.buffer = tf2_ros.Buffer()
        self.diagnostics = Diagnostics(["lidar", "front"])
        self.model = SimpleNamespace(detector=self.detector("first"))
        logger = SimpleNamespace(debug=self._debug, warning=self.warnings.append)
        self.outputs = outputs = SimpleNamespace(
            publish=lambda *what: self.published.append(what),
            publish_timing=self.timings.append,
            wants_grid=False,
            wants_queries=False,
        )
        self.clock_ns = START
        self.pipeline = Pipeline(
            self.buffer,
            self.model,
            outputs,
            self.diagnostics,
            logger,
            DetectionOptions(),
            lambda: self.clock_ns,
            pipelining=pipelining,
        )
        self.pipeline.start()

    def _debug(self, text: str) -> None:
        if "Traceback" in text:
            self.debug.append(text)

    def detector(self, name: str) -> SimpleNamespace:
        def detect(frame: Frame, options: DetectionOptions) -> SimpleNamespace:
            self.detected.append((name, options.max_detections))
            if name == "broken":
                raise ValueError("bad weights")
            return SimpleNamespace(seconds={"decoder": 0.002})

        return SimpleNamespace(detect=detect, image_size=(0, 0), classes=CLASSES, placement=None, device="cpu")

    def process(self, submitted: FrameRequest) -> None:
        """Submit a request and wait until the pipeline has processed it."""
        before = sum(self.pipeline.counts)
        self.pipeline.submit(submitted)
        wait_for(lambda: not self.pipeline.running or sum(self.pipeline.counts) > before)

    def frames(self) -> tuple[bytes, str]:
        status = self.diagnostics.report(Time(), time.monotonic(), 0, 0).status[0]
        return status.level, status.message

    def values(self) -> dict[str, str]:
        status = self.diagnostics.report(Time(), time.monotonic(), 0, 0).status[0]
        return {pair.key: pair.value for pair in status.values}

    def detector_that_waits(self) -> tuple[threading.Event, threading.Event]:
        """Let the next detections wait; return the events of their start, and of their permission to go on."""
        started, go_on = threading.Event(), threading.Event()
        plain = self.model.detector.detect

        def detect(frame: Frame, options: DetectionOptions) -> SimpleNamespace:
            started.set()
            assert go_on.wait(5)
            return plain(frame, options)

        self.model.detector.detect = detect
        return started, go_on
