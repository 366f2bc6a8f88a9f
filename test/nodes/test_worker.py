"""One request at a time, what is superseded is dropped, and nothing that fails ends it."""

import threading
from collections.abc import Sequence

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")

from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import PointCloud2

from aqr_perception.nodes.input.frame_request import AssemblerSettings, FrameRequest
from aqr_perception.nodes.worker import Worker


def newest_wins(one: object, other: object) -> bool:
    return True


def test_the_newest_request_wins_and_the_overtaken_are_counted() -> None:
    started, go_on, done = threading.Event(), threading.Event(), []

    def process(request: int) -> None:
        started.set()
        go_on.wait(5)
        done.append(request)

    worker = Worker(process, lambda error: None, newest_wins)
    worker.submit(0)
    assert started.wait(5)
    for request in (1, 2, 3):
        worker.submit(request)
    finished = threading.Event()
    go_on.set()
    while len(done) < 2 and not finished.wait(0.01):
        pass
    worker.stop()
    assert done == [0, 3] and worker.dropped == 2 and worker.processed == 2


def test_a_failure_is_reported_and_the_next_request_is_processed() -> None:
    failures: list[Exception] = []
    reached = threading.Event()

    def process(request: str) -> None:
        if request == "bad":
            raise ValueError("bad frame")
        reached.set()

    failed = threading.Event()
    worker = Worker(process, lambda error: (failures.append(error), failed.set()), newest_wins)
    worker.submit("bad")
    assert failed.wait(5)
    worker.submit("good")
    assert reached.wait(5)
    worker.stop()
    assert [str(failure) for failure in failures] == ["bad frame"]


def test_stopping_forgets_what_waits() -> None:
    started, go_on, done = threading.Event(), threading.Event(), []

    def process(request: int) -> None:
        started.set()
        go_on.wait(5)
        done.append(request)

    worker = Worker(process, lambda error: None, newest_wins)
    worker.submit(0)
    assert started.wait(5)
    worker.submit(1)
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    go_on.set()
    stopping.join(5)
    assert not stopping.is_alive() and done == [0]


def processed_of(requests: Sequence[FrameRequest]) -> tuple[list[FrameRequest], int]:
    """What becomes of requests that come while the worker is busy: those processed, in order, and how many dropped."""
    started, go_on, finished = threading.Event(), threading.Event(), threading.Event()
    done: list[FrameRequest | None] = []

    def process(request: FrameRequest | None) -> None:
        started.set()
        assert go_on.wait(5)
        done.append(request)
        if len(done) == 1 + len(requests) - worker.dropped:
            finished.set()

    def supersedes(one: FrameRequest | None, other: FrameRequest | None) -> bool:
        return one is not None and other is not None and one.supersedes(other)

    worker: Worker[FrameRequest | None] = Worker(process, lambda error: None, supersedes)
    worker.submit(None)
    assert started.wait(5)
    for request in requests:
        worker.submit(request)
    go_on.set()
    assert finished.wait(5)
    worker.stop()
    return [request for request in done if request is not None], worker.dropped


def frame(stamp_ns: int, with_sweep: bool) -> FrameRequest:
    sweeps = (PointCloud2(),) if with_sweep else ()
    return FrameRequest(stamp_ns, "lidar", sweeps, (), AssemblerSettings(lidar_topic="/points"))


def test_a_camera_only_frame_does_not_displace_a_sweep_that_waits() -> None:
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
def test_whatever_comes_the_newest_sweep_and_the_newest_data_are_processed(stamps: list[tuple[int, bool]]) -> None:
    done, dropped = processed_of([frame(*stamp) for stamp in stamps])
    assert len(done) + dropped == len(stamps) and len(done) <= 2
    assert max(request.stamp_ns for request in done) == max(stamp for stamp, _ in stamps)
    sweeps = [stamp for stamp, with_sweep in stamps if with_sweep]
    assert [request.stamp_ns for request in done if request.sweeps] == ([max(sweeps)] if sweeps else [])


def test_what_waits_can_be_forgotten() -> None:
    started, go_on, done = threading.Event(), threading.Event(), []

    def process(request: int) -> None:
        started.set()
        assert go_on.wait(5)
        done.append(request)

    worker = Worker(process, lambda error: None, newest_wins)
    worker.submit(0)
    assert started.wait(5)
    worker.submit(1)
    worker.forget()
    go_on.set()
    worker.stop()
    assert done == [0] and worker.dropped == 1
