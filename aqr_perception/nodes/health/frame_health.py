# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Health of the frames: their rate, their age, and the last error."""

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from aqr_perception.nodes.health.event_rate import WINDOW, EventRate
from aqr_perception.nodes.health.sensor_health import State

AGES_WINDOW = 10.0
"""Seconds over which the ages of the outputs are reported."""

_MOST_AGES = 2000


@dataclass
class FrameHealth:
    """Recent history of the frames. Times are in seconds of a monotonic clock.

    Attributes:
        frames, outputs: rates of the frames, and of the published results.
        error: error of the latest frame; empty after a frame without error.
        stuck: what the frame in progress does if it takes far too long; empty if it does not.
        doubts: what is odd about the frames that are published, as long as it is.
        out_of_order: number of results dropped because a newer one was published, or because time jumped back.
    """

    frames: EventRate = field(default_factory=EventRate)
    outputs: EventRate = field(default_factory=EventRate)
    error: str = ""
    stuck: str = ""
    doubts: dict[str, str] = field(default_factory=dict)
    out_of_order: int = 0
    _ages: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_MOST_AGES))
    _late: int = 0
    _latest_late: float = -math.inf
    _late_error: str = ""

    def forget_rates(self) -> None:
        """Forget the usual rates."""
        self.frames.forget_usual()
        self.outputs.forget_usual()

    def add_age(self, age: float, now: float) -> None:
        """Add the age of a published result in seconds: from the measurement to the publication."""
        self._ages.append((now, age))
        self._late_error = ""

    def add_late(self, age: float, max_latency: float, now: float) -> None:
        """Count a result that is dropped for its age."""
        self._late += 1
        self._latest_late = now
        self._late_error = f"results are dropped: {age:.2f} s old, at most max_latency = {max_latency:g} s allowed"

    def state(self, now: float) -> State:
        """Return the state of the frames of an active node."""
        if self.stuck:
            return DiagnosticStatus.ERROR, self.stuck
        if self._late_error and now - self._latest_late <= WINDOW:
            return DiagnosticStatus.ERROR, self._late_error
        if self.error:
            return DiagnosticStatus.ERROR, self.error
        if self.outputs.overdue(now):
            return DiagnosticStatus.STALE, "no frames"
        doubts = [text for text in self.doubts.values() if text]
        slow = self.outputs.slow(now)
        if not math.isnan(slow):
            doubts.insert(0, f"slow: {slow:.1f} frames/s, usually {self.outputs.usual:.1f}")
        if doubts:
            return DiagnosticStatus.WARN, "; ".join(doubts)
        return DiagnosticStatus.OK, f"{self.outputs.per_second(now):.1f} frames/s"

    def values(self, now: float) -> dict[str, str]:
        """Return the values of the status."""
        return {
            "too_old": str(self._late),
            "out_of_order": str(self.out_of_order),
            "rate": f"{self.outputs.per_second(now):.2f}",
            **self._age_values(now),
        }

    def _age_values(self, now: float) -> dict[str, str]:
        """Return the ages of the outputs of the last seconds, from the measurement to the publication."""
        while self._ages and now - self._ages[0][0] > AGES_WINDOW:
            self._ages.popleft()
        ages = [age for _, age in self._ages if not math.isnan(age)]
        if not ages:
            return dict.fromkeys(("age_p50", "age_p95", "age_max"), "unknown")
        p50, p95 = np.percentile(ages, (50, 95))
        return {"age_p50": f"{p50:.3f} s", "age_p95": f"{p95:.3f} s", "age_max": f"{max(ages):.3f} s"}
