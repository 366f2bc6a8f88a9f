# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with frames, for the log and /diagnostics."""

import re
import threading
import time
import traceback
from typing import Any

from aqr_perception.byte_cache import ByteCache, text_bytes
from aqr_perception.nodes.health.frame_health import FrameHealth

_SAME_WARNING_PERIOD = 5.0
_MOST_TEXT_BYTES = 2**20


class FrameFaults:
    """Warnings and errors of frames that are in flight at once. Thread-safe.

    Args:
        health: its `error` is that of the latest frame; empty after a frame without error.
        logger: logger of the node.
    """

    def __init__(self, health: FrameHealth, logger: Any) -> None:
        self._health, self._logger = health, logger
        self._lock = threading.Lock()
        self._failed = -1
        self._last_warned: ByteCache[str, float] = ByteCache(_MOST_TEXT_BYTES, lambda kind, _: text_bytes(kind))
        self._traced: set[tuple[str, str, int]] = set()

    def fail(self, number: int, error: str, warning: str = "") -> None:
        """Report why a frame is dropped, until a frame that is not older succeeds.

        Args:
            number: grows from frame to frame.
            error: for /diagnostics.
            warning: for the log; empty: the error.
        """
        with self._lock:
            if number >= self._failed:
                self._failed, self._health.error = number, error
        self.warn(warning or error)

    def succeed(self, number: int) -> None:
        """Forget the error, unless a later frame than this one has failed already."""
        with self._lock:
            if number >= self._failed:
                self._health.error = ""

    def warn(self, text: str) -> None:
        """Log a warning; one that differs only in numbers is repeated every few seconds at most."""
        kind, now = re.sub(r"\d+", "#", text), time.monotonic()
        with self._lock:
            last = self._last_warned.get(kind)
            is_due = last is None or now - last >= _SAME_WARNING_PERIOD
            if is_due:
                self._last_warned.put(kind, now)
        if is_due:
            self._logger.warning(text)

    def trace_once(self, error: Exception) -> None:
        """Log the traceback of an error at debug level; errors of one type from one line are of one kind."""
        *_, (origin, line) = traceback.walk_tb(error.__traceback__)
        kind = (type(error).__name__, origin.f_code.co_filename, line)
        with self._lock:
            is_new = kind not in self._traced
            self._traced.add(kind)
        if is_new:
            self._logger.debug("".join(traceback.format_exception(error)))
