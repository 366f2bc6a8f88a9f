"""State of the sensors, the model and the frames, for /diagnostics."""

import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from aqr_perception.nodes.input.frame_request import INTENDED, SensorUse

WINDOW = 2.0
"""Seconds over which rates are measured; a sensor without messages for longer is silent."""


class _EventRate:
    """Rate of an event over the last `WINDOW` seconds.

    Attributes:
        latest: time of the last event in seconds; -inf before the first one.
    """

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self.latest = -math.inf

    def add(self, now: float) -> None:
        self._times.append(now)
        self.latest = now
        self._drop_old(now)

    def per_second(self, now: float) -> float:
        self._drop_old(now)
        return len(self._times) / WINDOW

    def _drop_old(self, now: float) -> None:
        while self._times and now - self._times[0] > WINDOW:
            self._times.popleft()


@dataclass
class _SensorHistory:
    """Recent history of one sensor.

    Attributes:
        messages: rate of the received messages.
        frames: rate of the frames that used the sensor.
        last_use: use of the sensor in the latest frame.
        last_problem: the latest reason why an enabled sensor was not used.
    """

    messages: _EventRate = field(default_factory=_EventRate)
    frames: _EventRate = field(default_factory=_EventRate)
    last_use: SensorUse | None = None
    last_problem: str = "none"


class Diagnostics:
    """Collector of events, reported as diagnostic_msgs/DiagnosticArray. Thread-safe.

    `now` is the time in seconds of a monotonic clock.

    Args:
        sensors: names of all configured sensors, in the order of the report.

    Attributes:
        model: description of the running model.
        model_error: why the latest requested model failed to load; empty if it is loaded.
        frame_error: error of the latest frame; empty after a frame without error.
    """

    def __init__(self, sensors: Sequence[str] = ()) -> None:
        self.model = ""
        self.model_error = ""
        self.frame_error = ""
        self._lock = threading.Lock()
        self._sensors = {name: _SensorHistory() for name in sensors}
        self._frames = _EventRate()

    def add_message(self, sensor: str, now: float) -> None:
        """Count a message from a sensor."""
        with self._lock:
            self._sensors[sensor].messages.add(now)

    def add_frame(self, sensors: Sequence[SensorUse], now: float) -> None:
        """Count a frame and record which sensors it used."""
        with self._lock:
            self._frames.add(now)
            for use in sensors:
                self._add_use(self._sensors[use.name], use, now)

    def report(self, stamp: Time, now: float, processed: int, dropped: int, active: bool = True) -> DiagnosticArray:
        """Return the current state.

        Args:
            processed, dropped: number of frames since the node was activated.
            active: whether the node is active and should produce frames.
        """
        message = DiagnosticArray()
        message.header.stamp = stamp
        with self._lock:
            frames = self._frame_status(now, processed, dropped, active)
            sensors = [self._sensor_status(name, sensor, now) for name, sensor in self._sensors.items()]
        message.status = [frames, self._model_status(), *sensors]
        return message

    def _add_use(self, sensor: _SensorHistory, use: SensorUse, now: float) -> None:
        sensor.last_use = use
        if use.used:
            sensor.frames.add(now)
        elif use.reason not in INTENDED:
            sensor.last_problem = use.reason

    def _frame_status(self, now: float, processed: int, dropped: int, active: bool) -> DiagnosticStatus:
        rate = self._frames.per_second(now)
        level, text = self._frame_state(rate, active)
        return _status("frames", level, text, processed=processed, dropped=dropped, rate=f"{rate:.2f}")

    def _frame_state(self, rate: float, active: bool) -> tuple[bytes, str]:
        if not active:
            return DiagnosticStatus.OK, "not active"
        if self.frame_error:
            return DiagnosticStatus.ERROR, self.frame_error
        if rate == 0:
            return DiagnosticStatus.STALE, "no frames"
        return DiagnosticStatus.OK, f"{rate:.1f} frames/s"

    def _model_status(self) -> DiagnosticStatus:
        level = DiagnosticStatus.WARN if self.model_error else DiagnosticStatus.OK
        return _status("model", level, self.model_error or self.model, running=self.model)

    def _sensor_status(self, name: str, sensor: _SensorHistory, now: float) -> DiagnosticStatus:
        level, text = self._sensor_state(sensor, now)
        silence = now - sensor.messages.latest
        age = math.nan if sensor.last_use is None else sensor.last_use.age
        return _status(
            f"sensor {name}",
            level,
            text,
            rate=f"{sensor.messages.per_second(now):.2f}",
            used_rate=f"{sensor.frames.per_second(now):.2f}",
            last_heard="never" if math.isinf(silence) else f"{silence:.1f} s ago",
            age="unknown" if math.isnan(age) else f"{age:.3f} s",
            last_problem=sensor.last_problem,
        )

    def _sensor_state(self, sensor: _SensorHistory, now: float) -> tuple[bytes, str]:
        use, silence = sensor.last_use, now - sensor.messages.latest
        if use is not None and use.reason in INTENDED:
            return DiagnosticStatus.OK, use.reason
        if math.isinf(silence):
            return DiagnosticStatus.STALE, "no data"
        if silence > WINDOW:
            return DiagnosticStatus.STALE, f"silent for {silence:.0f} s"
        if use is None or now - self._frames.latest > WINDOW:
            return DiagnosticStatus.OK, "receiving data, but no frames"
        if not use.used:
            return DiagnosticStatus.WARN, use.reason
        return (DiagnosticStatus.WARN, f"used, but {use.doubt}") if use.doubt else (DiagnosticStatus.OK, "used")


def _status(name: str, level: bytes, message: str, **values: object) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(
        level=level, name=f"aqr_perception: {name}", message=message, hardware_id="aqr_perception", values=pairs
    )
