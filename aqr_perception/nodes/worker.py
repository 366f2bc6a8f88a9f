"""Worker thread for slow requests, which drops superseded requests."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Request = TypeVar("Request")


class Worker(Generic[Request]):
    """Thread that processes requests one at a time, in order of submission; it drops and counts superseded ones.

    Args:
        process: processes a request.
        report: called with each exception that `process` raises; the worker continues.
        supersedes: whether the first request makes the second one, older or newer, unnecessary. It should leave few
            requests waiting.

    Attributes:
        processed, dropped: numbers of requests.
    """

    def __init__(
        self,
        process: Callable[[Request], None],
        report: Callable[[Exception], None],
        supersedes: Callable[[Request, Request], bool],
    ) -> None:
        self._process, self._report, self._supersedes = process, report, supersedes
        self._condition = threading.Condition()
        self._waiting: list[Request] = []
        self._running = True
        self.processed = 0
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="aqr_perception worker", daemon=True)
        self._thread.start()

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
            try:
                self._process(request)
            except Exception as error:  # a failed frame must not end the node
                self._report(error)
            self.processed += 1
