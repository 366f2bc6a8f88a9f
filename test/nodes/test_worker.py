"""One request at a time, the newest wins, and nothing that fails ends it."""

import threading

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")

from aqr_perception.nodes.worker import Worker


def test_the_newest_request_wins_and_the_overtaken_are_counted() -> None:
    started, go_on, done = threading.Event(), threading.Event(), []

    def process(request: int) -> None:
        started.set()
        go_on.wait(5)
        done.append(request)

    worker = Worker(process, lambda error: None)
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
    worker = Worker(process, lambda error: (failures.append(error), failed.set()))
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

    worker = Worker(process, lambda error: None)
    worker.submit(0)
    assert started.wait(5)
    worker.submit(1)
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    go_on.set()
    stopping.join(5)
    assert not stopping.is_alive() and done == [0]
