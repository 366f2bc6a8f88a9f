"""One frame's way: what is published, timed, warned of and told to diagnostics."""

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

import tf2_ros
from builtin_interfaces.msg import Time

from aqr_perception.frame import Frame
from aqr_perception.nodes.diagnostics import Diagnostics
from aqr_perception.nodes.input.assembler import AssembledFrame, AssemblerSettings, FrameRequest, SensorUse
from aqr_perception.nodes.pipeline import Pipeline
from aqr_perception.options import DetectionOptions


class Stage:
    """A pipeline between stand-ins that keep what reaches them."""

    def __init__(self) -> None:
        self.published: list[tuple] = []
        self.timings: list[Any] = []
        self.warnings: list[str] = []
        self.assembled = AssembledFrame(Frame(7, np.zeros((1, 5), np.float32)), (SensorUse("lidar", True, 0.0),), [])
        self.detected: list[tuple[str, int]] = []
        self.diagnostics = Diagnostics(["lidar"])
        self.model = SimpleNamespace(detector=self.detector("first"))
        logger = SimpleNamespace(debug=lambda text: None, warning=self.warnings.append)
        outputs = SimpleNamespace(publish=lambda *what: self.published.append(what), publish_timing=self.timings.append)
        assembler = SimpleNamespace(build=lambda request, buffer, width: self.assembled)
        self.pipeline = Pipeline(
            assembler, tf2_ros.Buffer(), self.model, outputs, self.diagnostics, logger, DetectionOptions()
        )
        self.pipeline.start()

    def detector(self, name: str) -> SimpleNamespace:
        def detect(frame: Frame, options: DetectionOptions) -> SimpleNamespace:
            self.detected.append((name, options.max_detections))
            if name == "broken":
                raise ValueError("bad weights")
            return SimpleNamespace(seconds={"decoder": 0.002})

        return SimpleNamespace(detect=detect, image_size=(0, 0))

    def process(self, **changes: Any) -> None:
        """One frame from submission to its end."""
        settings = AssemblerSettings(lidar_topic="/points", transform_wait=0.0, **changes)
        before = sum(self.pipeline.counts)
        self.pipeline.submit(FrameRequest(7, "lidar", (), (), settings))
        waited = threading.Event()
        while self.pipeline.running and sum(self.pipeline.counts) == before:
            waited.wait(0.005)

    def frames(self) -> tuple[bytes, str]:
        status = self.diagnostics.report(Time(), 0.0, 0, 0).status[0]
        return status.level, status.message


@pytest.fixture
def stage():
    stage = Stage()
    yield stage
    stage.pipeline.stop()


def test_a_frame_is_detected_published_and_timed(stage: Stage) -> None:
    stage.pipeline.options = DetectionOptions(max_detections=5)
    stage.process()
    assert stage.detected == [("first", 5)]
    (frame, _, sensors, to_output, output_frame), timing = stage.published[0], stage.timings[0]
    assert (frame.stamp_ns, sensors, output_frame) == (7, stage.assembled.sensors, "lidar")
    np.testing.assert_array_equal(to_output, np.eye(4))
    assert list(timing.stages) == ["assemble", "decoder", "publish"] and timing.header.stamp.nanosec == 7
    assert (timing.frames_processed, timing.frames_dropped) == (1, 0)


def test_a_frame_without_sensors_ends_with_its_warnings(stage: Stage) -> None:
    stage.assembled = AssembledFrame(None, (SensorUse("lidar", False, 0.0, "no x"),), ["/points: no x 1"])
    stage.process()
    stage.assembled = stage.assembled._replace(warnings=["/points: no x 2"])
    stage.process()
    assert not stage.detected and not stage.published
    assert stage.warnings == ["/points: no x 1"], "the same warning, numbers aside, comes once in a while"


def test_a_failure_names_its_stage_until_a_frame_succeeds(stage: Stage) -> None:
    stage.model.detector = stage.detector("broken")
    stage.process()
    assert stage.frames()[1] == "detect: ValueError: bad weights"
    assert "bad weights" in stage.warnings[0] and not stage.published
    stage.model.detector = stage.detector("mended")
    stage.process()
    assert "bad weights" not in stage.frames()[1] and len(stage.published) == 1


def test_detections_stay_in_the_model_frame_where_the_output_frame_is_unknown(stage: Stage) -> None:
    stage.process(output_frame="nowhere")
    assert stage.published[0][4] == "lidar" and "output_frame nowhere" in stage.warnings[0]


def test_while_stopped_requests_are_forgotten(stage: Stage) -> None:
    stage.pipeline.stop()
    stage.process()
    assert not stage.pipeline.running and stage.pipeline.counts == (0, 0)
    stage.pipeline.start()
    stage.process()
    assert len(stage.published) == 1


def test_a_request_goes_with_the_model_it_was_put_together_for(stage: Stage) -> None:
    started, go_on = threading.Event(), threading.Event()
    plain = stage.model.detector.detect

    def detect(frame: Frame, options: DetectionOptions) -> SimpleNamespace:
        started.set()
        assert go_on.wait(5)
        return plain(frame, options)

    stage.model.detector.detect = detect
    request = FrameRequest(7, "lidar", (), (), AssemblerSettings(lidar_topic="/points"))
    stage.pipeline.submit(request)
    assert started.wait(5)
    stage.pipeline.submit(request)
    stage.model.detector = stage.detector("second")
    go_on.set()
    waited = threading.Event()
    while len(stage.published) < 2:
        waited.wait(0.005)
    assert [name for name, _ in stage.detected] == ["first", "first"]
