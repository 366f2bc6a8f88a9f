# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The pipeline from a frame request to published messages: results, timing, warnings and diagnostics."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from diagnostic_msgs.msg import DiagnosticStatus
from helpers.recorded_pipeline import POINTS, Stage, live, request
from helpers.sensor_messages import MS, START, image, info, sweep, transform
from helpers.waiting import wait_for

from aqr_perception.decoding import sensor_data
from aqr_perception.detector import ModelOutputError
from aqr_perception.frame import CLASSES, Frame, FramePlacement
from aqr_perception.nodes.input import transforms
from aqr_perception.nodes.input.frame_request import AssemblerSettings, CameraInput, CameraSettings, FrameRequest
from aqr_perception.nodes.stamps import stamp_to_ns
from aqr_perception.options import DetectionOptions


@pytest.fixture(params=["off", "on"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Return a pipeline with and without pipelining: both promise the same."""
    stage = Stage(request.param)
    yield stage
    stage.pipeline.stop()


def test_a_frame_is_detected_published_and_timed(stage: Stage) -> None:
    stage.pipeline.options = DetectionOptions(max_detections=5)
    stage.process(request())
    assert stage.detected == [("first", 5)]
    (frame, _, sensors, to_output, output_frame, *_), timing = stage.published[0], stage.timings[0]
    assert (frame.stamp_ns, output_frame) == (START, "lidar")
    assert [(use.name, use.used) for use in sensors] == [("lidar", True)]
    np.testing.assert_array_equal(frame.points, [[*POINTS[0], 0.0]])
    np.testing.assert_array_equal(to_output, np.eye(4))
    wait = ["wait"] if stage.pipeline.pipelining == "on" else []
    assert list(timing.stages) == ["assemble", *wait, "decoder", "publish"]
    assert timing.header.stamp.sec == START // 1_000_000_000
    assert (timing.frames_processed, timing.frames_dropped) == (1, 0)


def test_the_time_of_each_stage_is_in_the_diagnostics(stage: Stage) -> None:
    assert stage.values()["overhead_ms"] == "unknown"
    plain = stage.model.detector.detect

    def detect(frame: Frame, options: DetectionOptions) -> SimpleNamespace:
        time.sleep(0.05)
        return plain(frame, options)

    stage.model.detector.detect = detect
    stage.process(request())
    values = stage.values()
    assert float(values["model_ms"]) >= 50 > float(values["overhead_ms"]) > 0
    assert float(values["build_cpu_ms"]) > 0 and float(values["overhead_cpu_ms"]) > 0
    assert float(values["decode_ms"]) == float(values["pictures_ms"]) == 0


def test_thresholds_of_classes_that_the_model_lacks_are_not_passed_on(stage: Stage) -> None:
    given = []

    def detect(frame: Frame, options: DetectionOptions) -> SimpleNamespace:
        given.append(options.class_score_thresholds)
        return SimpleNamespace(seconds={})

    stage.model.detector = SimpleNamespace(
        detect=detect, image_size=(0, 0), classes=("car", "forklift"), placement=None, device="cpu"
    )
    stage.pipeline.options = DetectionOptions(class_score_thresholds={"bus": 0.5, "forklift": 0.25})
    stage.process(request())
    assert given == [{"forklift": 0.25}]


def test_attention_is_asked_for_while_the_queries_have_subscribers(stage: Stage) -> None:
    given = []

    def detect(frame: Frame, options: DetectionOptions) -> SimpleNamespace:
        given.append(options.attention)
        return SimpleNamespace(seconds={})

    stage.model.detector.detect = detect
    for stamp_ns, subscribed in ((START, False), (START + 1, True), (START + 2, False)):
        stage.outputs.wants_queries = subscribed
        stage.process(request(stamp_ns=stamp_ns))
    assert given == [False, True, False]


def test_a_frame_without_usable_sensors_ends_with_a_warning(stage: Stage) -> None:
    for _ in range(2):
        stage.process(request(names="abcd"))
    assert not stage.detected and not stage.published
    assert len(stage.warnings) == 2 and "point cloud without x" in stage.warnings[0], (
        "each warning is logged once in a while"
    )


def test_warnings_that_differ_only_in_numbers_are_logged_once_in_a_while(stage: Stage) -> None:
    for unknown in ("camera 1", "camera 2", "mast"):
        stage.process(request(output_frame=unknown))
    assert [warning.split(":")[0] for warning in stage.warnings] == [
        "no detections in output_frame camera 1",
        "no detections in output_frame mast",
    ]


def test_a_failure_names_its_stage_until_a_frame_succeeds(stage: Stage) -> None:
    stage.model.detector = stage.detector("broken")
    stage.process(request())
    assert stage.frames()[1] == "detect: ValueError: bad weights"
    assert "bad weights" in stage.warnings[0] and not stage.published
    stage.model.detector = stage.detector("mended")
    stage.process(request())
    assert "bad weights" not in stage.frames()[1] and len(stage.published) == 1


def test_the_traceback_of_an_unexpected_error_is_logged_once_at_debug_level(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise ZeroDivisionError("odd cloud")

    monkeypatch.setattr(sensor_data, "points_from_message", fail)
    for _ in range(3):
        stage.process(request())
    assert len(stage.debug) == 1 and stage.debug[0].rstrip().endswith("ZeroDivisionError: odd cloud")
    assert "in fail" in stage.debug[0] and "/points: unexpected error: found ZeroDivisionError" in stage.warnings[0]
    assert not stage.published


def test_an_output_that_is_not_finite_is_an_error_and_nothing_is_published(stage: Stage) -> None:
    def detect(frame: Frame, options: DetectionOptions) -> None:
        raise ModelOutputError("aqr_tiny with torn weights: found 7 of 10 output numbers that are not finite")

    stage.model.detector = SimpleNamespace(
        detect=detect, image_size=(0, 0), classes=CLASSES, placement=None, device="cpu"
    )
    stage.process(request())
    level, text = stage.frames()
    assert level == DiagnosticStatus.ERROR and "aqr_tiny with torn weights: found 7 of 10" in text
    assert not stage.published


def test_detections_are_published_in_the_output_frame(stage: Stage) -> None:
    mount = np.eye(4)
    mount[:3, 3] = (1.0, 0.0, 2.0)
    stage.buffer.set_transform_static(transform("base_link", "lidar", mount), "test")
    stage.process(request(output_frame="base_link"))
    np.testing.assert_allclose(stage.published[0][3], mount)
    assert stage.published[0][4] == "base_link" and not stage.warnings


def test_nothing_is_published_in_another_frame_than_the_output_frame(stage: Stage) -> None:
    stage.process(request(output_frame="nowhere"))
    assert not stage.published and not stage.timings
    assert stage.frames()[1].startswith("no detections in output_frame nowhere: /tf: no transform")
    assert "output_frame nowhere" in stage.warnings[0]


def at_x(x: float) -> np.ndarray:
    pose = np.eye(4)
    pose[0, 3] = x
    return pose


def test_a_moving_output_frame_is_that_of_the_frames_time_and_never_much_older(stage: Stage) -> None:
    for age, x in ((1000, 1.0), (300, 2.0), (100, 3.0)):
        stage.buffer.set_transform(transform("odom", "lidar", at_x(x), START - age * MS), "test")
    stage.process(request(stamp_ns=START - 200 * MS, output_frame="odom"))
    stage.process(request(stamp_ns=START, output_frame="odom"))
    assert [to_output[0, 3] for _, _, _, to_output, *_ in stage.published] == pytest.approx([2.5, 3.0])
    stage.process(request(stamp_ns=START + 400 * MS, output_frame="odom"))
    assert len(stage.published) == 2, "TF is 0.5 s old"
    assert "at most 0.2 s before" in stage.frames()[1]


def test_each_stamp_is_published_once_and_never_after_a_later_one(stage: Stage) -> None:
    for stamp_ns in (START, START, START - 50 * MS, START + 50 * MS):
        stage.process(request(stamp_ns=stamp_ns))
    assert [published[0].stamp_ns for published in stage.published] == [START, START + 50 * MS]
    assert stage.values()["out_of_order"] == "2"


def test_after_a_time_jump_stamps_start_over_and_the_frame_in_progress_is_dropped(stage: Stage) -> None:
    stage.process(request())
    started, go_on = stage.detector_that_waits()
    stage.pipeline.submit(request(stamp_ns=START + 50 * MS))
    assert started.wait(5)
    stage.pipeline.forget()
    stage.pipeline.submit(request(stamp_ns=START - 5000 * MS))
    go_on.set()
    wait_for(lambda: len(stage.published) == 2)
    assert [published[0].stamp_ns for published in stage.published] == [START, START - 5000 * MS]


def test_results_older_than_the_largest_latency_are_dropped_counted_and_named(stage: Stage) -> None:
    stage.clock_ns = START + 1200 * MS
    stage.process(live(START))
    assert not stage.detected, "no time is spent on a frame that is too old"
    started, go_on = stage.detector_that_waits()
    stage.pipeline.submit(live(START + 1100 * MS))
    assert started.wait(5)
    stage.clock_ns = START + 2200 * MS
    go_on.set()
    wait_for(lambda: stage.values()["too_old"] == "2")
    assert not stage.published
    assert "1.10 s old, at most max_latency = 1 s" in stage.frames()[1]
    assert "max_latency = 1 s" in stage.warnings[0] and "set max_latency to 1.8," in stage.warnings[0]
    stage.process(live(START + 2100 * MS))
    assert len(stage.published) == 1 and "max_latency" not in stage.frames()[1]


def test_ages_from_fast_playback_are_named_as_such(stage: Stage) -> None:
    stage.clock_ns = START + 3000 * MS
    stage.process(replace(live(START), received=time.monotonic() - 0.3))
    assert "set max_latency to 4.5," in stage.warnings[0]
    assert "play the recording more slowly: 3.00 s of it took 0.3" in stage.warnings[0]


def test_a_recording_that_loops_faster_than_a_frame_takes_is_named(stage: Stage) -> None:
    for loop in range(3):
        started, go_on = stage.detector_that_waits()
        stage.pipeline.submit(request())
        assert started.wait(5)
        stage.pipeline.forget()
        go_on.set()
        wait_for(lambda count=loop + 1: stage.values()["out_of_order"] == str(count))
        stage.model.detector = stage.detector("first")
        assert any("play the recording at a lower rate" in warning for warning in stage.warnings) is (loop > 0)
    level, text = stage.frames()
    assert level == DiagnosticStatus.ERROR and "s between them" in text and not stage.published
    stage.process(request())
    assert "between them" not in stage.frames()[1]


def test_the_age_of_the_results_is_reported(stage: Stage) -> None:
    assert stage.values()["age_p50"] == "unknown"
    for index in range(10):
        stage.clock_ns = START + index * 100 * MS + (400 if index == 9 else 100) * MS
        stage.process(live(START + index * 100 * MS))
    values = stage.values()
    assert (values["age_p50"], values["age_max"]) == ("0.100 s", "0.400 s")
    assert 0.2 < float(values["age_p95"].removesuffix(" s")) < 0.4


class SleepingClock:
    """A stand-in of the module `time` whose clock moves only by its own sleeps."""

    def __init__(self) -> None:
        self.slept = 0.0

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def monotonic(self) -> float:
        return self.slept


def test_all_lookups_of_a_frame_share_one_wait_and_the_next_frame_does_not_wait_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SleepingClock()
    monkeypatch.setattr(transforms, "time", clock)
    camera = CameraSettings("front", "/front/image", "/front/info", compressed=True)
    settings = AssemblerSettings((camera,), "/points", transform_wait=0.5, output_frame="elsewhere")
    inputs = (CameraInput(camera, image("nowhere"), info("nowhere"), START),)
    submitted = FrameRequest(START, "lidar", (sweep(POINTS),), inputs, settings)
    stage.process(submitted)
    assert not stage.published and len(stage.warnings) == 2, "neither the camera nor the output frame is known"
    assert clock.slept == pytest.approx(0.5, abs=0.01)
    stage.process(submitted)
    assert clock.slept == pytest.approx(0.5, abs=0.01)


def test_requests_are_dropped_while_stopped(stage: Stage) -> None:
    stage.pipeline.stop()
    stage.process(request())
    assert not stage.pipeline.running and stage.pipeline.counts == (0, 0)
    stage.pipeline.start()
    stage.process(request())
    assert len(stage.published) == 1


def test_a_request_is_processed_by_the_model_that_ran_when_it_was_submitted(stage: Stage) -> None:
    started, go_on = stage.detector_that_waits()
    stage.pipeline.submit(request())
    assert started.wait(5)
    stage.pipeline.submit(request(stamp_ns=START + MS))
    stage.model.detector = stage.detector("second")
    go_on.set()
    wait_for(lambda: len(stage.published) == 2)
    assert [name for name, _ in stage.detected] == ["first", "first"]


def test_weight_maps_get_the_header_of_their_cameras_own_image(stage: Stage) -> None:
    camera = CameraSettings("front", "/front/image", "/front/info", compressed=True, offset=0.02)
    optical, taken = "front_optical", START - 30 * MS
    settings = AssemblerSettings((camera,), "/points", transform_wait=0.0)
    inputs = (CameraInput(camera, image(optical, taken), info("other"), taken - 20 * MS),)
    stage.process(FrameRequest(START, "lidar", (sweep(POINTS),), inputs, settings))
    header = stage.published[0][5]["front"]
    assert (header.frame_id, stamp_to_ns(header.stamp)) == (optical, taken)


def test_the_grid_lies_in_the_base_frame_and_is_left_out_where_tf_lacks_it(stage: Stage) -> None:
    stage.outputs.wants_grid = True
    mount = np.eye(4)
    mount[:3, 3] = (1.0, 0.0, 1.8)
    stage.buffer.set_transform_static(transform("base_link", "lidar", mount), "test")
    stage.process(request(base_frame="base_link"))
    ground = stage.published[0][6]
    assert ground.frame_id == "base_link" and stage.published[0][4] == "lidar"
    np.testing.assert_allclose(ground.placement()[:3, 3], (1.0, 0.0, 0.0), atol=1e-9)
    for later, changes, named in ((1, {}, "base_frame"), (2, {"base_frame": "nowhere"}, "nowhere")):
        stage.process(request(stamp_ns=START + later * MS, **changes))
        assert stage.published[-1][6] is None and named in stage.warnings[-1]
    assert len(stage.published) == 3, "the detections are published all the same"


@pytest.mark.parametrize(("base_frame", "named"), [("garage", "garage"), ("", "no base_frame and no output_frame")])
def test_a_grid_without_ground_is_a_warning_of_the_frames_as_long_as_somebody_wants_it(
    stage: Stage, base_frame: str, named: str
) -> None:
    stage.outputs.wants_grid = True
    stage.process(request(base_frame=base_frame))
    level, text = stage.frames()
    assert level == DiagnosticStatus.WARN and text.startswith("no ~/weights/bev/grid: ") and named in text
    assert stage.published[0][6] is None and text in stage.warnings
    stage.outputs.wants_grid = False
    stage.process(request(stamp_ns=START + MS, base_frame=base_frame))
    assert "grid" not in stage.frames()[1]


def test_a_model_frame_at_another_height_than_the_models_is_a_warning_of_the_frames(stage: Stage) -> None:
    stage.model.detector.placement = FramePlacement(1.8, "x")
    flat = np.random.default_rng(0).uniform(-20, 20, (2000, 4)).astype(np.float32)
    flat[:, 2], flat[:, 3] = 0.0, 10.0
    for index in range(4):
        message = replace(request(stamp_ns=START + index * MS), sweeps=(sweep(flat, START + index * MS),))
        stage.process(message)
    level, text = stage.frames()
    assert level == DiagnosticStatus.WARN and "model frame at another height" in text
    assert sum("model frame at another height" in warning for warning in stage.warnings) == 1


def test_a_stuck_frame_is_named_with_its_stage_and_time(stage: Stage) -> None:
    go_on = threading.Event()
    stage.model.detector.detect = lambda frame, options: (go_on.wait(5), SimpleNamespace(seconds={}))[1]
    stage.pipeline.submit(request())
    wait_for(lambda: bool(stage.pipeline.stuck))
    assert "stage detect for 0." in stage.pipeline.stuck or "stage detect for 1." in stage.pipeline.stuck
    go_on.set()
    wait_for(lambda: stage.pipeline.counts[0] == 1)
    assert not stage.pipeline.stuck
