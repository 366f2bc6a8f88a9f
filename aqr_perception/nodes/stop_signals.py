# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM as a request to stop, which ends the process in time even if its work cannot stop."""

import contextlib
import gc
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE, _FAREWELL = 1.3, 0.5
_OPEN_FILES = Path("/proc/self/fd")
_LOCK = re.compile(r"/dev/shm/(?:fastdds|fastrtps)_[0-9a-f]{16}_el")
"""Lock of a segment of shared memory. Fast DDS keeps it open in the process that owns the segment, and in no other."""


class StopSignals:
    """Request to stop, at any moment and any number of times.

    The signals are blocked in every thread, and a thread of its own waits for them. So no code is interrupted in the
    middle, and a main thread that is busy in a library does not delay the end of the process.

    Create it in the main thread before other threads start: threads inherit the blocked signals. This module imports
    nothing slow, so that a program can do this before its long imports.

    Attributes:
        requested: set by the first signal.
    """

    def __init__(self) -> None:
        self.requested = threading.Event()
        self._grace = 0.0
        self._farewell: Callable[[], object] | None = None
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        threading.Thread(target=self._wait, name="stop signals", daemon=True).start()

    def wait_for_clean_up(self) -> None:
        """Grant the process some time after a signal, from now on; before this call, a signal ends it at once."""
        self._grace = _GRACE

    def say_goodbye_by(self, farewell: Callable[[], object]) -> None:
        """Set what tells other nodes of the end if the clean-up takes too long; it runs in a thread of its own."""
        self._farewell = farewell

    @staticmethod
    def exit(status: int) -> NoReturn:
        """End the process without waiting for threads, one of which may still load a model."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        # Entities of ROS are part of cycles. With the last one, DDS says goodbye to the others and frees its memory.
        gc.collect()
        _end(status)

    def _wait(self) -> None:
        signal.sigwait(_SIGNALS)
        self.requested.set()
        time.sleep(self._grace)
        if self._farewell is not None:
            goodbye = threading.Thread(target=self._farewell, name="goodbye", daemon=True)
            goodbye.start()
            goodbye.join(_FAREWELL)
        _end(0)


def _end(status: int) -> NoReturn:
    """End the process; remove its segments of shared memory, which nothing else removes until the machine restarts."""
    try:
        for lock in _own_locks():
            for name in (lock, lock.removesuffix("_el")):
                Path(name).unlink(missing_ok=True)
    finally:  # an error in the thread of the signals would leave the process running
        os._exit(status)


def _own_locks() -> list[str]:
    locks = []
    for file in _OPEN_FILES.iterdir() if _OPEN_FILES.is_dir() else ():
        with contextlib.suppress(OSError):  # another thread has closed the file
            locks += [target for target in [os.readlink(file)] if _LOCK.fullmatch(target)]
    return locks
