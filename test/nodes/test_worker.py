# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Threads with names, and a pool for short work side by side."""

import os
import threading
from pathlib import Path

import pytest
from helpers.waiting import PATIENCE

from aqr_perception.nodes.worker import WorkerPool, start_thread


def shown_name() -> str:
    """Return this thread's name in the system."""
    return Path(f"/proc/self/task/{threading.get_native_id()}/comm").read_text().strip()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux shows the names of threads")
def test_the_system_shows_the_names_of_threads() -> None:
    names = list[str]()
    start_thread(lambda: names.append(shown_name()), "aqr_something_long").join(PATIENCE)
    assert names == ["aqr_something_l"]
    pool = WorkerPool("aqr_pool")
    if len(os.sched_getaffinity(0)) > 1:
        assert set(pool.run([shown_name, shown_name])) == {"aqr_pool"}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_pool_works_side_by_side_and_keeps_the_order() -> None:
    both = threading.Barrier(2, timeout=PATIENCE)

    def meet(name: str) -> str:
        both.wait()
        return name

    assert WorkerPool("pool").run([lambda: meet("one"), lambda: meet("two")]) == ["one", "two"]


def test_a_pool_of_one_core_works_in_the_callers_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    me = threading.get_ident()
    assert WorkerPool("pool").run([threading.get_ident] * 3) == [me] * 3


def test_a_pool_raises_the_first_error() -> None:
    with pytest.raises(ZeroDivisionError):
        WorkerPool("pool").run([lambda: 1 // 0, lambda: 1])
    assert WorkerPool("pool").run([]) == []
