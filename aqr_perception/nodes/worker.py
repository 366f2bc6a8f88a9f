"""One thread that does the slow work; the newest request wins."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Request = TypeVar("Request")


class Worker(Generic[Request]):
    """Processes requests one at a time. A request that waits is replaced by a newer one, and counted as dropped.

    Args:
        process: does the work. What it raises goes to `report`, and the worker goes on.
        report: called with the exception.
    """

    def __init__(self, process: Callable[[Request], None], report: Callable[[Exception], None]) -> None:
        self._process, self._report = process, report
        self._condition = threading.Condition()
        self._waiting: Request | None = None
        self._running = True
        self.processed = 0
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="aqr_perception worker", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Hand over a request; returns at once."""
        with self._condition:
            if self._waiting is not None:
                self.dropped += 1
            self._waiting = request
            self._condition.notify()

    def stop(self) -> None:
        """Finish the request under way, forget the waiting one and end the thread."""
        with self._condition:
            self._running = False
            self._waiting = None
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting is not None or not self._running)
                if not self._running:
                    return
                request, self._waiting = self._waiting, None
            try:
                self._process(request)  # type: ignore[arg-type]
            except Exception as error:  # a frame that fails must not end the node
                self._report(error)
            self.processed += 1
