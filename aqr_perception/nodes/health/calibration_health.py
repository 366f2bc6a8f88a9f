# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Health of a camera's calibration: whether it still comes, and whether it stays the same."""

import math
from typing import Any

from aqr_perception.decoding.calibration_parts import calibration_parts, changed_parts
from aqr_perception.nodes.health.event_rate import EventRate
from aqr_perception.nodes.health.topic_links import NO_FAULT, LinkState

CHANGE_SHOWN = 10.0
"""Seconds for which a change of the calibration is reported."""


class CalibrationHealth:
    """Calibrations (sensor_msgs/CameraInfo) of a camera. Times are in seconds of a monotonic clock.

    Attributes:
        changes: number of calibrations that differ from the one before.
    """

    def __init__(self) -> None:
        self._rate = EventRate()
        self._last: dict[str, object] = {}
        self._changed_at = -math.inf
        self._latched = False
        self._link = NO_FAULT
        self._checked_at = -math.inf
        self.changes = 0

    def add(self, info: Any, now: float, live: bool = True) -> str:
        """Take a calibration; return the names of the parts that differ from the one before.

        Args:
            live: whether it was sent now; otherwise it was latched before.
        """
        if live:
            self._rate.add(now)
        parts = calibration_parts(info)
        last, self._last = self._last, parts
        changed = changed_parts(last or parts, parts)
        if changed:
            self.changes += 1
            self._changed_at = now
        return ", ".join(changed)

    def set_link(self, link: LinkState, now: float) -> None:
        """Take the state of the topic; a latched calibration stays valid when its publisher is gone."""
        self._link, self._checked_at = link, now
        if not link.is_cut and link != NO_FAULT:
            self._latched = bool(link.latched)

    @property
    def reason(self) -> str:
        """Why the topic brings no messages."""
        return self._link.reason

    def doubts(self, now: float) -> list[str]:
        """Return what is odd about the calibration in use."""
        doubts = []
        if self._has_ceased(now):
            silence = now - self._rate.latest
            doubts.append(f"calibration silent for {silence:.1f} s, the last one stays in use: {self._link.reason}")
        if now - self._changed_at <= CHANGE_SHOWN:
            times = "once" if self.changes == 1 else f"{self.changes} times"
            doubts.append(f"calibration changed {times}, {now - self._changed_at:.1f} s ago")
        return doubts

    def _has_ceased(self, now: float) -> bool:
        if self._latched or math.isinf(self._rate.latest):
            return False
        return self._rate.overdue(now) or (self._link.is_cut and self._checked_at > self._rate.latest)
