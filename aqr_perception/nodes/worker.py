# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Threads with names that the system shows, and a pool for short work side by side."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

ResultT = TypeVar("ResultT")

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
