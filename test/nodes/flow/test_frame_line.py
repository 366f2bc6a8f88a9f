# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The threads of the stages: frames in order, superseded ones are dropped, failures end neither them nor each other.

Every wait has a limit, and a line is released and stopped even if its test fails.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")

from helpers.waiting import PATIENCE, wait_for
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import PointCloud2

from aqr_perception.nodes.flow.frame_line import FrameLine, Stage
from aqr_perception.nodes.input.frame_request import AssemblerSettings, FrameRequest

Request = TypeVar("Request")
BUSY = "busy"


class BusyWorker(Generic[Request]):
    """A worker that is busy with a request of its own until `release`; the requests submitted meanwhile wait."""

    def __init__(self, supersedes: Callable[[Request, Request], bool]) -> None:
        self.done: list[Request] = []
        self.failures: list[Exception] = []
        self._busy, self._released = threading.Event(), threading.Event()

        def either_supersedes(one: Request, other: Request) -> bool:
            return BUSY not in (one, other) and supersedes(one, other)

        self.worker: FrameLine[Request | str] = FrameLine(
            [Stage("aqr_worker", self._process)], lambda _, error: self.failures.append(error), either_supersedes
        )
        self.worker.submit(BUSY)
        assert self._busy.wait(PATIENCE)

    def release(self) -> None:
        self._released.set()

    def finish(self, processed: int) -> None:
        """Release the worker and wait until it has processed this many of the submitted requests."""
        self.release()
        wait_for(lambda: self.worker.counts[0] == 1 + processed)

    def stop(self) -> None:
        """Release and stop the worker; fail if its thread does not end."""
        self.release()
        stopping = threading.Thread(target=self.worker.stop, daemon=True)
        stopping.start()
        stopping.join(PATIENCE)
        assert not stopping.is_alive()

    def _process(self, request: Request | str) -> bool:
        if request == BUSY:
            self._busy.set()
            assert self._released.wait(2 * PATIENCE)
        elif request == "bad":
            raise ValueError("bad frame")
        else:
            self.done.append(request)
        return True


@contextmanager
def busy_worker(supersedes: Callable[[Request, Request], bool]) -> Iterator[BusyWorker[Request]]:
    busy = BusyWorker(supersedes)
    try:
        yield busy
    finally:
        busy.stop()


def newest_wins(one: object, other: object) -> bool:
    return True


def test_the_newest_request_wins_and_the_superseded_ones_are_counted() -> None:
    with busy_worker(newest_wins) as busy:
        for request in (1, 2, 3):
            busy.worker.submit(request)
        busy.finish(processed=1)
        assert busy.done == [3] and busy.worker.counts[1] == 2


def test_requests_that_do_not_supersede_each_other_are_processed_in_order() -> None:
    with busy_worker(lambda one, other: False) as busy:
        for request in (2, 1, 3):
            busy.worker.submit(request)
        busy.finish(processed=3)
        assert busy.done == [2, 1, 3] and busy.worker.counts[1] == 0


def test_a_failure_is_reported_and_the_next_request_is_processed() -> None:
    with busy_worker(lambda one, other: False) as busy:
        for request in ("bad", "good"):
            busy.worker.submit(request)
        busy.finish(processed=2)
        assert [str(failure) for failure in busy.failures] == ["bad frame"] and busy.done == ["good"]


def test_stopping_finishes_the_request_in_progress_and_discards_the_waiting_one() -> None:
    with busy_worker(newest_wins) as busy:
        busy.worker.submit(1)
        stopping = threading.Thread(target=busy.worker.stop, daemon=True)
        stopping.start()
        wait_for(lambda: busy.worker._schedule._is_stopping)
        busy.release()
        stopping.join(PATIENCE)
        assert not stopping.is_alive() and busy.worker.counts[0] == 1 and busy.done == []


def test_waiting_requests_can_be_forgotten() -> None:
    with busy_worker(newest_wins) as busy:
        busy.worker.submit(1)
        busy.worker.forget()
        busy.worker.submit(2)
        busy.finish(processed=1)
        assert busy.done == [2] and busy.worker.counts[1] == 1


def frame(stamp_ns: int, with_sweep: bool) -> FrameRequest:
    sweeps = (PointCloud2(),) if with_sweep else ()
    return FrameRequest(stamp_ns, "lidar", sweeps, (), AssemblerSettings(lidar_topic="/points"))


def processed_of(requests: Sequence[FrameRequest]) -> tuple[list[FrameRequest], int]:
    """Submit requests to a busy worker; return those processed, in order, and the number of those dropped."""
    with busy_worker(FrameRequest.supersedes) as busy:
        for request in requests:
            busy.worker.submit(request)
        busy.finish(processed=len(requests) - busy.worker.counts[1])
        return busy.done, busy.worker.counts[1]


def test_a_camera_only_frame_does_not_displace_a_waiting_sweep() -> None:
    sweep, later = frame(100, True), frame(130, False)
    assert processed_of([sweep, later]) == ([sweep, later], 0)
    assert processed_of([sweep, frame(100, False)]) == ([sweep], 1)
    assert processed_of([frame(100, False), sweep]) == ([sweep], 1)


def test_an_older_sweep_displaces_neither_a_newer_one_nor_newer_images() -> None:
    late, sweep, images = frame(90, True), frame(100, True), frame(100, False)
    assert processed_of([sweep, late]) == ([sweep], 1)
    assert processed_of([images, late]) == ([images, late], 0)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_newest_sweep_and_the_newest_data_are_always_processed(stamps: list[tuple[int, bool]]) -> None:
    done, dropped = processed_of([frame(*stamp) for stamp in stamps])
    assert len(done) + dropped == len(stamps) and len(done) <= 2
    assert max(request.stamp_ns for request in done) == max(stamp for stamp, _ in stamps)
    sweeps = [stamp for stamp, with_sweep in stamps if with_sweep]
    assert [request.stamp_ns for request in done if request.sweeps] == ([max(sweeps)] if sweeps else [])


def test_a_line_tells_for_how_long_it_is_busy_and_how_long_it_usually_is() -> None:
    now, started, go_on = [0.0], threading.Event(), threading.Event()

    def process(seconds: float) -> bool:
        now[0] += seconds
        started.set()
        return go_on.wait(PATIENCE)

    line: FrameLine[float] = FrameLine(
        [Stage("aqr_worker", process)], lambda _, error: None, lambda one, other: False, clock=lambda: now[0]
    )
    try:
        assert line.progress is None and line.usual_seconds == 0.0
        line.submit(2.0)
        assert started.wait(PATIENCE) and line.progress == (2.0, 2.0)
        go_on.set()
        wait_for(lambda: line.counts[0] == 1)
        assert line.progress is None and line.usual_seconds == 2.0
    finally:
        go_on.set()
        line.stop()


class ThreeStages:
    """A line of three stages that record their thread. A frame named ``"0"`` fails in stage 0, and so on."""

    def __init__(self) -> None:
        self.works = list[tuple[int, str, str]]()
        self.failures = list[tuple[str, str]]()
        self.gates = [threading.Event() for _ in range(3)]
        for gate in self.gates:
            gate.set()
        stages = [Stage(f"stage_{index}", self._work(index)) for index in range(3)]
        self.line: FrameLine[str] = FrameLine(
            stages, lambda frame, error: self.failures.append((frame, str(error))), lambda one, other: False, main=1
        )

    def _work(self, index: int) -> Callable[[str], bool]:
        def work(frame: str) -> bool:
            self.works.append((index, frame, threading.current_thread().name))
            assert self.gates[index].wait(PATIENCE)
            if frame == str(index):
                raise ValueError(f"fails in {index}")
            return True

        return work

    def frames(self, stage: int) -> list[str]:
        return [frame for index, frame, _ in self.works if index == stage]


@pytest.fixture
def three() -> Iterator[ThreeStages]:
    three = ThreeStages()
    yield three
    for gate in three.gates:
        gate.set()
    three.line.stop()


@pytest.mark.parametrize("beside", [False, True])
def test_a_failure_in_one_stage_stops_neither_the_others_nor_the_next_frames(three: ThreeStages, beside: bool) -> None:
    frames = ["a", "0", "b", "1", "c", "2", "d"]
    for frame in frames:
        three.line.submit(frame, beside)
    wait_for(lambda: three.line.counts == (len(frames), 0))
    assert three.failures == [(str(stage), f"fails in {stage}") for stage in range(3)]
    assert [three.frames(stage) for stage in range(3)] == [frames, [*"ab1c2d"], [*"abc2d"]]


def test_alone_the_main_thread_does_everything_and_beside_others_only_its_own_stage(three: ThreeStages) -> None:
    three.line.submit("alone")
    wait_for(lambda: three.line.counts[0] == 1)
    assert {name for _, _, name in three.works} == {"stage_1"}
    three.works.clear()
    three.line.submit("beside", beside=True)
    wait_for(lambda: three.line.counts[0] == 2)
    assert three.works == [(stage, "beside", f"stage_{stage}") for stage in range(3)]


def test_a_frame_is_built_and_another_one_published_while_the_main_stage_works(three: ThreeStages) -> None:
    for gate in three.gates[1:]:
        gate.clear()
    for frame in "abc":
        three.line.submit(frame, beside=True)
    wait_for(lambda: three.frames(1) == ["a"] and three.frames(0) == ["a", "b"])
    three.gates[1].set()
    wait_for(lambda: three.frames(2) == ["a"] and three.frames(1) == ["a", "b"] and three.frames(0) == ["a", "b", "c"])
    three.gates[2].set()
    wait_for(lambda: three.line.counts == (3, 0))
    assert [three.frames(stage) for stage in range(3)] == [["a", "b", "c"]] * 3


def test_pipelining_may_change_with_frames_in_flight(three: ThreeStages) -> None:
    three.gates[1].clear()
    for frame in "ab":
        three.line.submit(frame, beside=True)
    wait_for(lambda: three.frames(0) == ["a", "b"])
    three.line.submit("c", beside=False)
    three.gates[1].set()
    wait_for(lambda: three.line.counts == (3, 0))
    three.line.submit("d", beside=True)
    wait_for(lambda: three.line.counts == (4, 0))
    assert [three.frames(stage) for stage in range(3)] == [["a", "b", "c", "d"]] * 3
    assert {name for index, frame, name in three.works if index == 1 or frame == "c"} == {"stage_1"}


def test_stopping_ends_all_threads_after_the_frame_in_the_main_stage(three: ThreeStages) -> None:
    three.gates[1].clear()
    for frame in "abc":
        three.line.submit(frame, beside=True)
    wait_for(lambda: three.frames(0) == ["a", "b"])
    stopping = threading.Thread(target=three.line.stop, daemon=True)
    stopping.start()
    wait_for(lambda: three.line._schedule._is_stopping)
    three.gates[1].set()
    stopping.join(PATIENCE)
    assert not stopping.is_alive() and three.frames(2) == ["a"] and three.line.counts[0] == 1


def test_the_main_stage_is_busy_although_frames_are_slow_to_build() -> None:
    published = list[float]()

    def sleep(seconds: float) -> Callable[[float], bool]:
        return lambda stamp: time.sleep(seconds) is None

    def publish(stamp: float) -> bool:
        published.append(time.monotonic())
        return True

    stages = [Stage("build", sleep(0.06)), Stage("detect", sleep(0.1)), Stage("publish", publish)]
    line: FrameLine[float] = FrameLine(
        stages, lambda _, error: None, lambda one, other: one >= other, lambda one, other: one > other, main=1
    )
    try:
        for _ in range(150):
            line.submit(time.monotonic(), beside=True)
            time.sleep(0.01)
            if len(published) == 9:
                break
        assert len(published) == 9
        periods = sorted(later - one for one, later in itertools.pairwise(published))
        assert periods[2] < 0.15, "one after another, a frame takes 0.16 s; a busy machine makes some slower"
    finally:
        line.stop()
