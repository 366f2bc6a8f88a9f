# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""CPU use of all other processes, from /proc/stat; they spoil measurements."""

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")
_IDLE = (3, 4)
"""Positions of idle time and of waiting for disks among the numbers of the first line."""


class MachineLoad:
    """CPU time that other processes used since this object was made."""

    def __init__(self) -> None:
        self._start, self._busy, self._own = time.perf_counter(), _busy_seconds(), _own_seconds()

    def others(self) -> float | None:
        """Return the mean number of CPUs that other processes kept busy; None where /proc/stat is missing."""
        busy, elapsed = _busy_seconds(), time.perf_counter() - self._start
        if busy is None or self._busy is None or elapsed <= 0:
            return None
        return max(0.0, (busy - self._busy - (_own_seconds() - self._own)) / elapsed)


def _busy_seconds() -> float | None:
    """Return the busy time of all CPUs since the machine's start."""
    try:
        numbers = [int(number) for number in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    return (sum(numbers) - sum(numbers[index] for index in _IDLE)) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
