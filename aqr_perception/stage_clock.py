# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Wall and CPU time of the stages of a frame, measured in every frame."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import NamedTuple, TypeVar

ResultT = TypeVar("ResultT")

PARTS = ("decode", "rectify", "build", "inspect", "messages", "pictures", "publish")
"""Parts of a frame's stages that are the node's own work, all but the model; see docs/reliability.md."""


class Spent(NamedTuple):
    """Seconds of wall time, and of CPU time of the threads that did the work."""

    wall: float
    cpu: float


class StageClock:
    """Clock of one frame: the stage in progress, and what finished stages and their parts took.

    Attributes:
        current: the stage in progress.
        seconds: wall time of each finished stage.
        parts: time of each part, without the parts inside of it. Where threads work at once, it is their sum.
    """

    def __init__(self) -> None:
        self.current = ""
        self.seconds: dict[str, float] = {}
        self.parts: dict[str, Spent] = {}

    @contextmanager
    def run(self, stage: str, part: str = "") -> Iterator[None]:
        """Measure a stage, with the functions that it calls; what they do outside of their parts counts as `part`."""
        self.current = stage
        start = time.perf_counter()
        before = _RUNNING.set(_Running(self))
        try:
            with measured(part):
                yield
        finally:
            _RUNNING.reset(before)
        self.seconds[stage] = time.perf_counter() - start

    def add(self, part: str, spent: Spent) -> None:
        known = self.parts.get(part, Spent(0.0, 0.0))
        self.parts[part] = Spent(known.wall + spent.wall, known.cpu + spent.cpu)


class _Running:
    """A part in progress, and what the parts inside of it took."""

    def __init__(self, clock: StageClock) -> None:
        self.clock, self.inside = clock, Spent(0.0, 0.0)


_RUNNING: ContextVar[_Running | None] = ContextVar("part in progress", default=None)


@contextmanager
def measured(part: str) -> Iterator[None]:
    """Count the block's time as a part of the frame in progress; do nothing outside of a frame or without a name."""
    parent = _RUNNING.get()
    if parent is None or not part:
        yield
        return
    own = _Running(parent.clock)
    before = _RUNNING.set(own)
    wall, cpu = time.perf_counter(), time.thread_time()
    try:
        yield
    finally:
        spent = Spent(time.perf_counter() - wall, time.thread_time() - cpu)
        _RUNNING.reset(before)
        parent.clock.add(part, Spent(spent.wall - own.inside.wall, spent.cpu - own.inside.cpu))
        parent.inside = Spent(parent.inside.wall + spent.wall, parent.inside.cpu + spent.cpu)


def in_this_frame(function: Callable[[], ResultT], part: str) -> Callable[[], ResultT]:
    """Return a function that does the same in another thread, and counts as a part of this thread's frame."""
    parent = _RUNNING.get()
    if parent is None:
        return function
    context = copy_context()

    def run() -> ResultT:
        _RUNNING.set(_Running(parent.clock))
        with measured(part):
            return function()

    return lambda: context.run(run)
