"""The worker: one request at a time, superseded ones are dropped, failures do not end it.

Every wait has a limit, and a worker is released and stopped even if its test fails.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")

from helpers.waiting import PATIENCE, wait_for
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import PointCloud2

from aqr_perception.nodes.input.frame_request import AssemblerSettings, FrameRequest
from aqr_perception.nodes.worker import Worker, WorkerPool, start_thread

Request = TypeVar("Request")


class BusyWorker(Generic[Request]):
    """A worker that is busy with a request of its own until `release`; the requests submitted meanwhile wait."""

    def __init__(self, supersedes: Callable[[Request, Request], bool]) -> None:
        self.done: list[Request] = []
        self.failures: list[Exception] = []
        self._busy, self._released = threading.Event(), threading.Event()

        def either_supersedes(one: Request | None, other: Request | None) -> bool:
            return one is not None and other is not None and supersedes(one, other)

        self.worker: Worker[Request | None] = Worker(self._process, self.failures.append, either_supersedes)
        self.worker.submit(None)
        assert self._busy.wait(PATIENCE)

    def release(self) -> None:
        self._released.set()

    def finish(self, processed: int) -> None:
        """Release the worker and wait until it has processed this many of the submitted requests."""
        self.release()
        wait_for(lambda: self.worker.processed == 1 + processed)

    def stop(self) -> None:
        """Release and stop the worker; fail if its thread does not end."""
        self.release()
        stopping = threading.Thread(target=self.worker.stop, daemon=True)
        stopping.start()
        stopping.join(PATIENCE)
        assert not stopping.is_alive()

    def _process(self, request: Request | None) -> None:
        if request is None:
            self._busy.set()
            assert self._released.wait(2 * PATIENCE)
        elif request == "bad":
            raise ValueError("bad frame")
        else:
            self.done.append(request)


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
        assert busy.done == [3] and busy.worker.dropped == 2


def test_requests_that_do_not_supersede_each_other_are_processed_in_order() -> None:
    with busy_worker(lambda one, other: False) as busy:
        for request in (2, 1, 3):
            busy.worker.submit(request)
        busy.finish(processed=3)
        assert busy.done == [2, 1, 3] and busy.worker.dropped == 0


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
        wait_for(lambda: not busy.worker._running)
        busy.release()
        stopping.join(PATIENCE)
        assert not stopping.is_alive() and busy.worker.processed == 1 and busy.done == []


def test_waiting_requests_can_be_forgotten() -> None:
    with busy_worker(newest_wins) as busy:
        busy.worker.submit(1)
        busy.worker.forget()
        busy.worker.submit(2)
        busy.finish(processed=1)
        assert busy.done == [2] and busy.worker.dropped == 1


def frame(stamp_ns: int, with_sweep: bool) -> FrameRequest:
    sweeps = (PointCloud2(),) if with_sweep else ()
    return FrameRequest(stamp_ns, "lidar", sweeps, (), AssemblerSettings(lidar_topic="/points"))


def processed_of(requests: Sequence[FrameRequest]) -> tuple[list[FrameRequest], int]:
    """Submit requests to a busy worker; return those processed, in order, and the number of those dropped."""
    with busy_worker(FrameRequest.supersedes) as busy:
        for request in requests:
            busy.worker.submit(request)
        busy.finish(processed=len(requests) - busy.worker.dropped)
        return busy.done, busy.worker.dropped


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


def test_a_worker_tells_for_how_long_it_is_busy_and_how_long_it_usually_is() -> None:
    now, started, go_on = [0.0], threading.Event(), threading.Event()

    def process(seconds: float) -> None:
        now[0] += seconds
        started.set()
        assert go_on.wait(PATIENCE)

    worker: Worker[float] = Worker(process, lambda error: None, lambda one, other: False, lambda: now[0])
    try:
        assert worker.busy_seconds == worker.usual_seconds == 0.0
        worker.submit(2.0)
        assert started.wait(PATIENCE) and worker.busy_seconds == 2.0
        go_on.set()
        wait_for(lambda: worker.processed == 1)
        assert worker.busy_seconds == 0.0 and worker.usual_seconds == 2.0
    finally:
        go_on.set()
        worker.stop()


def shown_name() -> str:
    """Return this thread's name in the system."""
    return Path(f"/proc/self/task/{threading.get_native_id()}/comm").read_text().strip()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux shows the names of threads")
def test_the_system_shows_the_names_of_threads() -> None:
    names = list[str]()
    start_thread(lambda: names.append(shown_name()), "aqr_something_long").join(PATIENCE)
    assert names == ["aqr_something_l"]
    pool = WorkerPool("aqr_pool")
    if len(os.sched_getaffinity(0)) > 1:
        assert set(pool.run([shown_name, shown_name])) == {"aqr_pool"}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_pool_works_side_by_side_and_keeps_the_order() -> None:
    both = threading.Barrier(2, timeout=PATIENCE)

    def meet(name: str) -> str:
        both.wait()
        return name

    assert WorkerPool("pool").run([lambda: meet("one"), lambda: meet("two")]) == ["one", "two"]


def test_a_pool_of_one_core_works_in_the_callers_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    me = threading.get_ident()
    assert WorkerPool("pool").run([threading.get_ident] * 3) == [me] * 3


def test_a_pool_raises_the_first_error() -> None:
    with pytest.raises(ZeroDivisionError):
        WorkerPool("pool").run([lambda: 1 // 0, lambda: 1])
    assert WorkerPool("pool").run([]) == []
