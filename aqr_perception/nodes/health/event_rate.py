# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rate of a repeated event: now, usually, and since when the event is overdue."""

import itertools
import math
import statistics
from collections import deque

WINDOW = 2.0
"""Seconds over which rates are measured, and after which an event of unknown period is overdue."""

_SHORTEST_LIMIT = 0.5
_OVERDUE_PERIODS = 2.5
_LONGEST_DELAY = 0.6
"""Seconds after the next event was due, at the latest, after which it is overdue."""

_MOST_TIMES = 2000
_SLOW_PERIODS = 1.7
_RECENT, _MANY = 3, 20


class EventRate:
    """Times of an event, in seconds of a monotonic clock.

    Attributes:
        latest: time of the last event in seconds; -inf before the first one.
    """

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_MOST_TIMES)
        self._intervals: deque[float] = deque(maxlen=_MANY)
        self._usual = math.inf
        self.latest = -math.inf

    def add(self, now: float) -> None:
        self._times.append(now)
        if math.isfinite(self.latest):
            self._intervals.append(now - self.latest)
        self.latest = now
        self._drop_old(now)
        if len(self._intervals) == _MANY:
            # The mean of many intervals withstands the bursts in which a busy machine delivers messages.
            self._usual = min(self._usual, statistics.fmean(self._intervals))

    def forget_usual(self) -> None:
        """Forget the usual rate, because another one may be usual from now on."""
        self._intervals.clear()
        self._usual = math.inf

    def per_second(self, now: float) -> float:
        self._drop_old(now)
        return len(self._times) / WINDOW

    @property
    def usual(self) -> float:
        """Highest rate per second that lasted for a while; NaN if unknown."""
        return 1 / self._usual if 0 < self._usual < math.inf else math.nan

    def overdue(self, now: float) -> bool:
        """Return whether the event has not come for clearly longer than its recent period.

        That is 2.5 periods but at least 0.5 s, and never more than 0.6 s after the event was due: of a rare event,
        nothing can be said before it is due.
        """
        return now - self.latest > self._limit()

    def slow(self, now: float) -> float:
        """Return the rate of the last few events if it is about half the usual one or less; else NaN."""
        recent = list(itertools.islice(reversed(self._intervals), _RECENT))
        if len(recent) < _RECENT or self.overdue(now):
            return math.nan
        period = sum(recent) / _RECENT
        return 1 / period if period > _SLOW_PERIODS * self._usual else math.nan

    def _limit(self) -> float:
        if len(self._intervals) < _RECENT:
            return WINDOW
        period = statistics.median(self._intervals)
        return max(min(_OVERDUE_PERIODS * period, period + _LONGEST_DELAY), _SHORTEST_LIMIT)

    def _drop_old(self, now: float) -> None:
        while self._times and now - self._times[0] > WINDOW:
            self._times.popleft()
