"""Threads: the worker for slow requests, which drops superseded requests, and a pool for short work side by side."""

import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

Request = TypeVar("Request")
ResultT = TypeVar("ResultT")

_USUAL_COUNT = 20
_MOST_THREADS = 4


def start_thread(work: Callable[[], None], name: str) -> threading.Thread:
    """Start a daemon thread that tools of the system, ``top -H`` for example, show by its name of up to 15 letters."""

    def run() -> None:
        _show_name(name)
        work()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _show_name(name: str) -> None:
    """Set this thread's name in the system."""
    with suppress(OSError):  # only Linux has such a file
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name[:15])


class WorkerPool:
    """Threads for short work that releases Python's lock: one for each core that the process may use, at most four."""

    def __init__(self, name: str) -> None:
        count = min(len(os.sched_getaffinity(0)), _MOST_THREADS)
        self._pool = ThreadPoolExecutor(count, name, partial(_show_name, name)) if count > 1 else None

    def run(self, work: Sequence[Callable[[], ResultT]]) -> list[ResultT]:
        """Return the results in order; the first error is raised."""
        if self._pool is None or len(work) < 2:
            return [one() for one in work]
        return list(self._pool.map(lambda one: one(), work))


class Worker(Generic[Request]):
    """Thread that processes requests one at a time, in order of submission; it drops and counts superseded ones.

    Args:
        process: processes a request.
        report: called with each exception that `process` raises; the worker continues.
        supersedes: whether the first request makes the second one, older or newer, unnecessary. It should leave few
            requests waiting.
        clock: a monotonic clock, in seconds.

    Attributes:
        processed, dropped: numbers of requests.
    """

    def __init__(
        self,
        process: Callable[[Request], None],
        report: Callable[[Exception], None],
        supersedes: Callable[[Request, Request], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._process, self._report, self._supersedes, self._clock = process, report, supersedes, clock
        self._condition = threading.Condition()
        self._waiting: list[Request] = []
        self._running = True
        self._started: float | None = None
        self._durations: deque[float] = deque(maxlen=_USUAL_COUNT)
        self.processed = 0
        self.dropped = 0
        self._thread = start_thread(self._run, "aqr_worker")

    @property
    def busy_seconds(self) -> float:
        """For how long the worker has been busy with its present request; 0 if it is idle."""
        started = self._started
        return 0.0 if started is None else self._clock() - started

    @property
    def usual_seconds(self) -> float:
        """How long a request usually takes; 0 before the first one."""
        with self._condition:
            return statistics.median(self._durations) if self._durations else 0.0

    def submit(self, request: Request) -> None:
        """Queue a request; returns at once."""
        with self._condition:
            waiting = [other for other in self._waiting if not self._supersedes(request, other)]
            if not any(self._supersedes(other, request) for other in waiting):
                waiting.append(request)
            self.dropped += len(self._waiting) + 1 - len(waiting)
            self._waiting = waiting
            self._condition.notify()

    def forget(self) -> None:
        """Drop the waiting requests."""
        with self._condition:
            self.dropped += len(self._waiting)
            self._waiting = []

    def stop(self) -> None:
        """Finish the request in progress, discard the waiting ones, and end the thread."""
        with self._condition:
            self._running = False
            self._waiting = []
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or not self._running)
                if not self._running:
                    return
                request = self._waiting.pop(0)
                self._started = self._clock()
            try:
                self._process(request)
            except Exception as error:  # a failed frame must not end the node
                self._report(error)
            with self._condition:
                self._durations.append(self.busy_seconds)
                self._started = None
                self.processed += 1
