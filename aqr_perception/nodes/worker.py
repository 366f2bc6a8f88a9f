"""One thread that does the slow work; what is superseded while it waits is dropped."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Request = TypeVar("Request")


class Worker(Generic[Request]):
    """Processes requests one at a time, in order of submission; superseded ones are dropped and counted.

    Args:
        process: does the work. What it raises goes to `report`, and the worker goes on.
        report: called with the exception.
        supersedes: whether the first request makes the second one needless, be it older or newer. It is to leave few
            of any that wait together.
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
        """Hand over a request; returns at once."""
        with self._condition:
            kept = [waiting for waiting in self._waiting if not self._supersedes(request, waiting)]
            if not any(self._supersedes(waiting, request) for waiting in kept):
                kept.append(request)
            self.dropped += len(self._waiting) + 1 - len(kept)
            self._waiting = kept
            self._condition.notify()

    def forget(self) -> None:
        """Drop what waits."""
        with self._condition:
            self.dropped += len(self._waiting)
            self._waiting = []

    def stop(self) -> None:
        """Finish the request under way, forget the waiting one and end the thread."""
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
            except Exception as error:  # a frame that fails must not end the node
                self._report(error)
            self.processed += 1
