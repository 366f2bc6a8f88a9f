# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM as a request to stop, which ends the process in time even if its work cannot stop."""

import os
import signal
import sys
import threading
import time
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE = 1.5


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
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        threading.Thread(target=self._wait, name="stop signals", daemon=True).start()

    def wait_for_clean_up(self) -> None:
        """Grant the process some time after a signal, from now on; before this call, a signal ends it at once."""
        self._grace = _GRACE

    @staticmethod
    def exit(status: int) -> NoReturn:
        """End the process without waiting for threads, one of which may still load a model."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)

    def _wait(self) -> None:
        signal.sigwait(_SIGNALS)
        self.requested.set()
        time.sleep(self._grace)
        os._exit(0)
