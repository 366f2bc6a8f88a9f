# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rates of topics, and gaps in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GAP = 2.5
"""A step longer than so many usual periods is a gap."""
_SHORTEST_GAP = 0.05
"""Seconds; shorter steps are jitter."""


@dataclass(frozen=True)
class TopicRate:
    """Times of one topic's messages.

    Attributes:
        hertz: messages a second; NaN for fewer than two.
        period: usual time between two messages in seconds, the median; NaN for fewer than two.
        gaps: number of gaps.
        longest_gap: longest time between two messages in seconds; 0 for fewer than two.
        longest_gap_ns: time at which it begins.
    """

    messages: int
    hertz: float
    period: float
    gaps: int
    longest_gap: float
    longest_gap_ns: int

    @property
    def slowest(self) -> float:
        """Rate at the longest gap, in Hz; NaN without one."""
        return 1.0 / self.longest_gap if self.longest_gap > 0 else float("nan")


def topic_rate(times_ns: Sequence[int] | NDArray[np.int64], parts: Sequence[tuple[int, int]] = ()) -> TopicRate:
    """Return the rate of a topic.

    Args:
        times_ns: times of recording in nanoseconds.
        parts: begin and end of the parts of a recording that were read; steps from part to part do not count.
    """
    times = np.sort(np.asarray(times_ns, np.int64))
    steps, begins = _steps(times, parts)
    if not len(steps):
        return TopicRate(len(times), float("nan"), float("nan"), 0, 0.0, 0)
    seconds = steps / 1e9
    period = float(np.median(seconds))
    longest = int(seconds.argmax())
    gaps = int((seconds > max(GAP * period, _SHORTEST_GAP)).sum())
    total = float(seconds.sum())
    hertz = len(seconds) / total if total > 0 else float("nan")
    return TopicRate(len(times), hertz, period, gaps, float(seconds[longest]), int(begins[longest]))


def _steps(times: NDArray[np.int64], parts: Sequence[tuple[int, int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the steps between messages of the same part, and the times at which they begin."""
    if len(times) < 2:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    steps, begins = np.diff(times), times[:-1]
    if len(parts) > 1:
        of_part = np.searchsorted([begin for begin, _ in parts], times, side="right")
        same = of_part[1:] == of_part[:-1]
        return steps[same], begins[same]
    return steps, begins
