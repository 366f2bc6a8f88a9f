# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Threads that work on the stages of frames."""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from aqr_perception.nodes.flow.frame_schedule import Progress, Schedule
from aqr_perception.nodes.worker import start_thread

ItemT = TypeVar("ItemT")


class Stage(NamedTuple, Generic[ItemT]):
    """A stage of a frame.

    Attributes:
        thread: name of its thread, of up to 15 letters.
        work: works on a frame; returns whether it goes on, or in the last stage, whether its work is complete.
    """

    thread: str
    work: Callable[[ItemT], bool]


class FrameLine(Generic[ItemT]):
    """Stages through which frames pass in order, in the order of their submission, as `Schedule` says.

    With `beside`, each stage works in its own thread. Otherwise one frame at a time is in flight, and the main stage's
    thread works on all of its stages. So the main stage never leaves its thread.

    Args:
        stages: at least one.
        main: index of the main stage.
        report: called with a frame and each exception that its stage raises; the frame ends, and all others go on.
        supersedes, follows: see `Schedule`.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        stages: Sequence[Stage[ItemT]],
        report: Callable[[ItemT, Exception], None],
        supersedes: Callable[[ItemT, ItemT], bool],
        follows: Callable[[ItemT, ItemT], bool] = lambda one, other: True,
        main: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stages, self._main, self._report, self._clock = stages, main, report, clock
        self._schedule: Schedule[ItemT] = Schedule(len(stages), supersedes, follows)
        self._condition = threading.Condition()
        self._threads = [start_thread(partial(self._run, index), stage.thread) for index, stage in enumerate(stages)]

    @property
    def counts(self) -> tuple[int, int]:
        """Numbers of frames that ended, and of those dropped for a newer one."""
        with self._condition:
            return self._schedule.processed, self._schedule.dropped

    @property
    def usual_seconds(self) -> float:
        """Usual time of the work on a frame, without waits; 0 before the first one."""
        with self._condition:
            return self._schedule.usual_seconds

    @property
    def progress(self) -> Progress[ItemT] | None:
        """The frame in work that has taken most time so far; None if no stage works."""
        with self._condition:
            return self._schedule.progress(self._clock())

    def submit(self, request: ItemT, beside: bool = False) -> None:
        """Queue a request; returns at once.

        Args:
            beside: whether this and the following requests may be begun while others are in flight.
        """
        with self._condition:
            self._schedule.beside = beside
            self._schedule.submit(request)
            self._condition.notify_all()

    def forget(self) -> None:
        """Drop the requests and the frame that wait."""
        with self._condition:
            self._schedule.forget()
            self._condition.notify_all()

    def stop(self) -> None:
        """Finish the frame in progress, discard the others, and end the threads; see `Schedule.stop`."""
        with self._condition:
            self._schedule.stop()
            self._condition.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self, thread: int) -> None:
        while (begun := self._next(thread)) is not None:
            stage, item = begun
            goes_on = False
            try:
                goes_on = self._stages[stage].work(item)
            except Exception as error:  # a failed frame must not end the node
                self._report(item, error)
            with self._condition:
                self._schedule.end(stage, self._clock(), goes_on)
                self._condition.notify_all()

    def _next(self, thread: int) -> tuple[int, ItemT] | None:
        """Wait for the next frame of a thread; return it with its stage, or None at the end."""
        with self._condition:
            while not self._schedule.is_over:
                now = self._clock()
                stages = self._stages_of(thread)
                for stage in stages:
                    if (item := self._schedule.begin(stage, now)) is not None:
                        self._condition.notify_all()  # nothing waits for this stage any more
                        return stage, item
                pause = min((self._schedule.pause(stage, now) for stage in stages), default=threading.TIMEOUT_MAX)
                self._condition.wait(min(pause, threading.TIMEOUT_MAX))
            return None

    def _stages_of(self, thread: int) -> Sequence[int]:
        """Return the stages that a thread works on, the last one first."""
        if self._schedule.beside or self._schedule.in_flight > 1:
            return (thread,)
        return range(len(self._stages) - 1, -1, -1) if thread == self._main else ()
