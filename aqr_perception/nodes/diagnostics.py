"""Health for /diagnostics: every sensor, the model and the frames."""

import math
from collections import deque
from collections.abc import Sequence

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from aqr_perception.nodes.frame_request import SensorUse

_WINDOW = 2.0
"""Seconds over which rates are counted."""


class Diagnostics:
    """Collects what happened and tells it as diagnostic_msgs/DiagnosticArray. `now` is in seconds, monotonic.

    Attributes:
        model: what runs, for people.
        model_error: why the model that was asked for last could not be loaded; empty where it was.
        frame_error: what the last frame that failed raised; empty after a good one.
    """

    def __init__(self) -> None:
        self.model = ""
        self.model_error = ""
        self.frame_error = ""
        self._frames: deque[tuple[float, tuple[SensorUse, ...]]] = deque()

    def add_frame(self, sensors: Sequence[SensorUse], now: float) -> None:
        """Note which sensors took part in a frame."""
        self._frames.append((now, tuple(sensors)))

    def report(self, stamp: Time, now: float, processed: int, dropped: int) -> DiagnosticArray:
        """Return the state of things."""
        while self._frames and now - self._frames[0][0] > _WINDOW:
            self._frames.popleft()
        message = DiagnosticArray()
        message.header.stamp = stamp
        message.status = [self._frame_status(processed, dropped), self._model_status(), *self._sensor_statuses()]
        return message

    def _frame_status(self, processed: int, dropped: int) -> DiagnosticStatus:
        rate = len(self._frames) / _WINDOW
        level, text = DiagnosticStatus.OK, f"{rate:.1f} frames/s"
        if self.frame_error:
            level, text = DiagnosticStatus.ERROR, self.frame_error
        elif not self._frames:
            level, text = DiagnosticStatus.STALE, "no frames"
        return _status("frames", level, text, processed=processed, dropped=dropped, rate=f"{rate:.2f}")

    def _model_status(self) -> DiagnosticStatus:
        level = DiagnosticStatus.WARN if self.model_error else DiagnosticStatus.OK
        return _status("model", level, self.model_error or self.model, running=self.model)

    def _sensor_statuses(self) -> list[DiagnosticStatus]:
        latest = self._frames[-1][1] if self._frames else ()
        statuses = []
        for use in latest:
            used = sum(other.used for _, sensors in self._frames for other in sensors if other.name == use.name)
            healthy = use.used or use.reason == "disabled"
            level = DiagnosticStatus.OK if healthy else DiagnosticStatus.WARN
            age = "never seen" if math.isnan(use.age) else f"{use.age:.3f} s"
            text = "used" if use.used else use.reason
            statuses.append(_status(f"sensor {use.name}", level, text, age=age, rate=f"{used / _WINDOW:.2f}"))
        return statuses


def _status(name: str, level: bytes, message: str, **values: object) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(
        level=level, name=f"aqr_perception: {name}", message=message, hardware_id="aqr_perception", values=pairs
    )
