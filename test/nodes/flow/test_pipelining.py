# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Frames side by side in the node's pipeline: build, detection and publication do not hinder each other."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from helpers.recorded_pipeline import Stage, live, request
from helpers.sensor_messages import MS, START, transform
from helpers.waiting import wait_for

from aqr_perception.decoding import sensor_data
from aqr_perception.frame import CLASSES, Frame, FramePlacement
from aqr_perception.nodes.flow import pipelining
from aqr_perception.nodes.input import frame_builder
from aqr_perception.options import DetectionOptions

FIRST, SECOND, THIRD = (START + index * 100 * MS for index in range(3))


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage("on")
    yield stage
    stage.pipeline.stop()


def stamps(stage: Stage) -> list[int]:
    return [published[0].stamp_ns for published in stage.published]


def built(stage: Stage) -> int:
    """Return how many frames have been built."""
    return len(stage.diagnostics.frames.frames._times)


def with_two_in_flight(stage: Stage) -> threading.Event:
    """Submit two frames, so that the first is in detection and the second is built; return its permission."""
    started, go_on = stage.detector_that_waits()
    stage.pipeline.submit(request(stamp_ns=FIRST))
    assert started.wait(5)
    stage.pipeline.submit(request(stamp_ns=SECOND))
    wait_for(lambda: built(stage) == 2)
    return go_on


def test_the_next_frame_is_built_while_the_model_runs(stage: Stage) -> None:
    go_on = with_two_in_flight(stage)
    assert stage.detected == [] and stage.pipeline.counts == (0, 0)
    go_on.set()
    wait_for(lambda: stage.pipeline.counts == (2, 0))
    assert stamps(stage) == [FIRST, SECOND]
    assert [timing.frames_processed for timing in stage.timings] == [1, 2]


def test_the_last_frame_is_published_while_the_model_runs(stage: Stage) -> None:
    publishing, go_on = threading.Event(), threading.Event()
    plain = stage.outputs.publish

    def publish(*what: Any) -> None:
        publishing.set()
        assert go_on.wait(5)
        plain(*what)

    stage.outputs.publish = publish
    stage.pipeline.submit(request(stamp_ns=FIRST))
    assert publishing.wait(5)
    stage.pipeline.submit(request(stamp_ns=SECOND))
    wait_for(lambda: len(stage.detected) == 2)
    assert not stage.published
    wait_for(lambda: bool(stage.pipeline.stuck))
    assert "in stage publish for" in stage.pipeline.stuck
    go_on.set()
    wait_for(lambda: stage.pipeline.counts == (2, 0))
    assert stamps(stage) == [FIRST, SECOND] and not stage.pipeline.stuck


def test_a_wait_for_transforms_holds_up_neither_the_model_nor_the_next_build(stage: Stage) -> None:
    stage.pipeline.submit(request(stamp_ns=FIRST, output_frame="odom", transform_wait=5.0))
    wait_for(lambda: len(stage.detected) == 1)
    stage.pipeline.submit(request(stamp_ns=SECOND))
    wait_for(lambda: len(stage.detected) == 2)
    stage.pipeline.submit(request(stamp_ns=THIRD))
    wait_for(lambda: built(stage) == 3)
    assert not stage.published, "the first frame still waits for its output frame"
    stage.buffer.set_transform_static(transform("odom", "lidar", np.eye(4)), "test")
    wait_for(lambda: stamps(stage) == [FIRST, SECOND, THIRD])


@pytest.mark.parametrize("part", ["build", "publication"])
def test_a_failure_beside_the_detection_is_named_and_the_detected_frame_is_published(
    stage: Stage, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise ZeroDivisionError(f"odd {part}")

    if part == "build":
        started, go_on = stage.detector_that_waits()
        stage.pipeline.submit(request(stamp_ns=FIRST))
        assert started.wait(5)
        with monkeypatch.context() as patch:
            patch.setattr(frame_builder, "_to_fixed", fail)
            stage.pipeline.submit(request(stamp_ns=SECOND))
            wait_for(lambda: stage.pipeline.counts[0] == 1)
    else:
        plain, stage.outputs.publish = stage.outputs.publish, fail
        stage.process(request(stamp_ns=FIRST))
        stage.outputs.publish = plain
        go_on = stage.detector_that_waits()[1]
        stage.pipeline.submit(request(stamp_ns=SECOND))
    stage_name = {"build": "assemble", "publication": "publish"}[part]
    assert stage.frames()[1] == f"{stage_name}: ZeroDivisionError: odd {part}"
    go_on.set()
    wait_for(lambda: stage.pipeline.counts[0] == 2)
    assert stamps(stage) == [FIRST if part == "build" else SECOND]
    assert ("odd build" in stage.frames()[1]) is (part == "build"), "an older frame does not hide a newer one's error"
    stage.process(request(stamp_ns=THIRD))
    assert "odd" not in stage.frames()[1] and stamps(stage)[-1] == THIRD


def test_a_jump_of_time_drops_the_built_frame_and_the_one_in_detection(stage: Stage) -> None:
    stage.process(request(stamp_ns=FIRST - MS))
    go_on = with_two_in_flight(stage)
    stage.pipeline.forget()
    back = START - 5000 * MS
    for stamp_ns in (back, back + 100 * MS):
        stage.pipeline.submit(request(stamp_ns=stamp_ns))
    go_on.set()
    wait_for(lambda: back + 100 * MS in stamps(stage))
    assert stamps(stage) in ([FIRST - MS, back, back + 100 * MS], [FIRST - MS, back + 100 * MS])
    assert stage.values()["out_of_order"] == "1", "the frame in detection; the built one is dropped as if it waited"


def test_a_built_frame_that_has_become_too_old_is_not_detected(stage: Stage) -> None:
    stage.clock_ns = FIRST
    started, go_on = stage.detector_that_waits()
    stage.pipeline.submit(live(FIRST, max_latency=60.0))
    assert started.wait(5)
    stage.pipeline.submit(live(SECOND, max_latency=1.0))
    wait_for(lambda: built(stage) == 2)
    stage.clock_ns = SECOND + 1500 * MS
    go_on.set()
    wait_for(lambda: stage.pipeline.counts[0] == 2)
    assert stamps(stage) == [FIRST] and len(stage.detected) == 1
    assert stage.values()["too_old"] == "1" and "an age of 1.50 s" in stage.warnings[0]


def test_another_model_runs_with_frames_built_for_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    widths, found = [], list[tuple[str, int]]()
    plain = frame_builder.FrameBuilder.build

    def build(self: Any, request: Any, transforms: Any, image_width: int, placement: FramePlacement | None) -> Any:
        widths.append(image_width)
        return plain(self, request, transforms, image_width, placement)

    def model(name: str, width: int) -> SimpleNamespace:
        def detect(frame: Frame, options: DetectionOptions) -> SimpleNamespace:
            found.append((name, frame.stamp_ns))
            return SimpleNamespace(seconds={})

        return SimpleNamespace(detect=detect, image_size=(width, 0), classes=CLASSES, placement=None, device="cpu")

    monkeypatch.setattr(frame_builder.FrameBuilder, "build", build)
    stage.model.detector = model("old", 320)
    started, go_on = stage.detector_that_waits()
    stage.pipeline.submit(request(stamp_ns=FIRST))
    assert started.wait(5)
    stage.model.detector = model("new", 640)
    stage.pipeline.submit(request(stamp_ns=SECOND))
    wait_for(lambda: built(stage) == 2)
    go_on.set()
    wait_for(lambda: stage.pipeline.counts == (2, 0))
    assert widths == [320, 640] and found == [("old", FIRST), ("new", SECOND)]


def test_a_stuck_build_is_named_although_the_model_is_idle(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, plain = threading.Event(), sensor_data.points_from_message

    def wait(*arguments: Any, **named: Any) -> Any:
        assert go_on.wait(5)
        return plain(*arguments, **named)

    monkeypatch.setattr(sensor_data, "points_from_message", wait)
    stage.pipeline.submit(request())
    wait_for(lambda: bool(stage.pipeline.stuck))
    assert "in stage assemble for" in stage.pipeline.stuck
    go_on.set()
    wait_for(lambda: stage.pipeline.counts == (1, 0))
    assert not stage.pipeline.stuck


def test_pipelining_may_change_while_frames_are_in_flight(stage: Stage) -> None:
    go_on = with_two_in_flight(stage)
    stage.pipeline.pipelining = "off"
    stage.pipeline.submit(request(stamp_ns=THIRD))
    go_on.set()
    wait_for(lambda: stage.pipeline.counts == (3, 0))
    started, go_on = stage.detector_that_waits()
    stage.pipeline.submit(request(stamp_ns=THIRD + MS))
    assert started.wait(5)
    stage.pipeline.submit(request(stamp_ns=THIRD + 2 * MS))
    assert stage.pipeline._line is not None and stage.pipeline._line._schedule.in_flight == 1
    assert built(stage) == 4, "nothing is built beside the detection any more"
    go_on.set()
    wait_for(lambda: stage.pipeline.counts == (5, 0))
    assert stamps(stage) == [FIRST, SECOND, THIRD, THIRD + MS, THIRD + 2 * MS]


def test_stopping_publishes_the_frame_in_detection_and_not_the_one_behind_it(stage: Stage) -> None:
    go_on = with_two_in_flight(stage)
    stopping = threading.Thread(target=stage.pipeline.stop)
    stopping.start()
    line = stage.pipeline._line
    wait_for(lambda: line is None or line._schedule._is_stopping)
    go_on.set()
    stopping.join(5)
    assert not stopping.is_alive() and not stage.pipeline.running and stamps(stage) == [FIRST]


@pytest.mark.parametrize(
    ("mode", "device", "cores", "expected"),
    [
        ("on", "cpu", 1, True),
        ("off", "cuda:0", 16, False),
        ("auto", "cpu", 2, False),
        ("auto", "cpu", 3, True),
        ("auto", "cuda:0", 2, True),
    ],
)
def test_auto_is_on_where_the_model_leaves_a_core(
    mode: pipelining.Pipelining, device: str, cores: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelining, "_cores", lambda: cores)
    assert pipelining.is_on(mode, device) is expected
