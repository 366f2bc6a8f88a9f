"""Worker thread for slow requests, which drops superseded requests."""

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Request = TypeVar("Request")

_USUAL_COUNT = 20


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
        self._thread = threading.Thread(target=self._run, name="aqr_perception worker", daemon=True)
        self._thread.start()

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
