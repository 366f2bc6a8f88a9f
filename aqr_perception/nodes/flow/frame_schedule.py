# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Order of frames through the stages of the node: which stage begins which frame, and when.

Without threads and clock, so that the rule can be simulated. Times are in seconds of a monotonic clock.
"""

import math
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

ItemT = TypeVar("ItemT")

_USUAL_COUNT = 20
_SPARE = 1.5
"""Time to allow for a stage, in units of its usual time: frames differ."""
_FIRST, _SECOND = 0, 1


@dataclass(eq=False)
class _Flight(Generic[ItemT]):
    """A frame in flight.

    Attributes:
        stage: the stage that works on it, or for which it waits.
        since: when this work or this wait began.
        is_waiting: whether it waits.
        worked: seconds that finished stages took, without waits.
        is_abandoned: whether it ends with its present stage.
    """

    item: ItemT
    since: float
    stage: int = _FIRST
    is_waiting: bool = False
    worked: float = 0.0
    is_abandoned: bool = False


class Progress(NamedTuple, Generic[ItemT]):
    """A frame on which a stage works, and the seconds of work on it so far."""

    item: ItemT
    seconds: float


class Schedule(Generic[ItemT]):
    """Frames that wait, and frames in flight. `pause` has the rule by which a stage begins a frame.

    Args:
        stages: number of stages. Every frame passes them in order, and each stage works on one frame at a time.
        supersedes: whether the first request makes the second one, older or newer, unnecessary. It should leave few
            requests waiting.
        follows: whether the first request may be begun while the second one is in flight.

    Attributes:
        beside: whether several frames may be in flight; False: a frame begins when the one before has ended.
        processed, dropped: numbers of frames that ended, and of those dropped for a newer one.
    """

    def __init__(
        self,
        stages: int,
        supersedes: Callable[[ItemT, ItemT], bool],
        follows: Callable[[ItemT, ItemT], bool] = lambda one, other: True,
    ) -> None:
        self._last = stages - 1
        self._supersedes, self._follows = supersedes, follows
        self._waiting: list[ItemT] = []
        self._flights: list[_Flight[ItemT]] = []  # the oldest first
        self._stage_seconds: list[deque[float]] = [deque(maxlen=_USUAL_COUNT) for _ in range(stages)]
        self._frame_seconds: deque[float] = deque(maxlen=_USUAL_COUNT)
        self._is_stopping = False
        self.beside = False
        self.processed = self.dropped = 0

    # --- The rule ----------------------------------------------------------------------------------------------------

    def pause(self, stage: int, now: float) -> float:
        """Return the seconds until a stage may begin its next frame: 0 for at once, infinite for after an event.

        A stage begins a frame when the next stage will be free at about the time at which it ends. So the stages work
        side by side, and a frame waits for little more than the differences between frames. At most one frame waits
        for a stage. One that waits for the second stage is dropped for a newer request where it would become too old,
        see `_too_old_at`.
        """
        if self._at(stage, waiting=False) or not self._has_next(stage):
            return math.inf
        if stage == _FIRST and not all(self._may_join(flight) for flight in self._flights):
            return math.inf
        if stage == self._last:
            return 0.0
        if (waiting := self._at(stage + 1, waiting=True)) is not None:
            if stage != _FIRST or not self._supersedes(self._waiting[0], waiting.item):
                return math.inf
            return max(0.0, self._too_old_at(waiting) - now)
        ahead = self._at(stage + 1, waiting=False)
        if ahead is None:
            return 0.0
        return max(0.0, ahead.since + _usual(self._stage_seconds[stage + 1]) - self._time_for(stage) - now)

    def _may_join(self, flight: _Flight[ItemT]) -> bool:
        """Return whether the next request may be begun beside a frame in flight."""
        return self.beside and self._follows(self._waiting[0], flight.item)

    def _time_for(self, stage: int) -> float:
        return _SPARE * _usual(self._stage_seconds[stage])

    def _too_old_at(self, waiting: _Flight[ItemT]) -> float:
        """Return when a frame that waits for the second stage should be dropped for a newer request.

        It has then waited for the usual time of a frame, and for half of the time that the frame ahead has taken. By
        the second condition, a model that hangs costs ever fewer builds.
        """
        ahead = [flight.since for flight in self._flights if not flight.is_waiting and flight.stage > _FIRST]
        if not ahead:
            return math.inf  # the second stage is about to begin it
        return max(waiting.since + sum(map(_usual, self._stage_seconds)), 2 * waiting.since - min(ahead))

    # --- Events ------------------------------------------------------------------------------------------------------

    def submit(self, request: ItemT) -> None:
        """Add a request; drop those that it supersedes, or itself."""
        if self._is_stopping:
            return
        waiting = [other for other in self._waiting if not self._supersedes(request, other)]
        if not any(self._supersedes(other, request) for other in waiting):
            waiting.append(request)
        self.dropped += len(self._waiting) + 1 - len(waiting)
        self._waiting = waiting

    def begin(self, stage: int, now: float) -> ItemT | None:
        """Return the frame that a stage begins now; None if it begins none."""
        if self.pause(stage, now) > 0:
            return None
        if stage > _FIRST:
            flight = self._at(stage, waiting=True)
            assert flight is not None  # `pause` has found it
            flight.is_waiting, flight.since = False, now
            return flight.item
        self._drop_waiting_for_second()
        flight = _Flight(self._waiting.pop(0), now)
        self._flights.append(flight)
        return flight.item

    def end(self, stage: int, now: float, goes_on: bool) -> None:
        """Note that a stage has ended its frame.

        Args:
            goes_on: whether the stage has done its whole work, so that the frame goes on to the next one, if any.
        """
        flight = self._at(stage, waiting=False)
        assert flight is not None  # a stage ends what it began
        spent = now - flight.since
        flight.worked += spent
        if goes_on:
            self._stage_seconds[stage].append(spent)
        if goes_on and stage < self._last and not flight.is_abandoned:
            flight.stage, flight.is_waiting, flight.since = stage + 1, True, now
            return
        self._flights.remove(flight)
        self._frame_seconds.append(flight.worked)
        self.processed += 1

    def forget(self) -> None:
        """Drop the requests and the frame that wait."""
        self.dropped += len(self._waiting)
        self._waiting = []
        self._drop_waiting_for_second()

    def stop(self) -> None:
        """Begin no more requests; finish the oldest frame in flight, and others that have reached the second stage.

        Frames that still wait for it would delay the end by the time of a frame.
        """
        self._is_stopping, self._waiting = True, []
        for flight in self._flights[1:]:
            if flight.stage == _FIRST or (flight.stage == _SECOND and flight.is_waiting):
                flight.is_abandoned = True
        self._flights = [flight for flight in self._flights if not (flight.is_abandoned and flight.is_waiting)]

    # --- State -------------------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether all work is done after `stop`."""
        return self._is_stopping and not self._flights

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    @property
    def usual_seconds(self) -> float:
        """Usual time of the work on a frame, without waits; 0 before the first one."""
        return _usual(self._frame_seconds)

    def progress(self, now: float) -> Progress[ItemT] | None:
        """Return the frame in work that has taken most time so far; None if no stage works."""
        working = (flight for flight in self._flights if not flight.is_waiting)
        found = [Progress(flight.item, flight.worked + now - flight.since) for flight in working]
        return max(found, key=lambda one: one.seconds, default=None)

    def _at(self, stage: int, waiting: bool) -> _Flight[ItemT] | None:
        """Return the frame that waits for a stage, or on which it works."""
        found = (flight for flight in self._flights if flight.stage == stage and flight.is_waiting == waiting)
        return next(found, None)

    def _has_next(self, stage: int) -> bool:
        return bool(self._waiting) if stage == _FIRST else self._at(stage, waiting=True) is not None

    def _drop_waiting_for_second(self) -> None:
        waiting = self._at(_SECOND, waiting=True)
        if waiting is not None:
            self._flights.remove(waiting)
            self.dropped += 1


def _usual(seconds: deque[float]) -> float:
    return statistics.median(seconds) if seconds else 0.0
