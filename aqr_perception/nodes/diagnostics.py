"""Health for /diagnostics: every configured sensor, the model and the frames."""

import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from aqr_perception.nodes.input.frame_request import ON_PURPOSE, SensorUse

WINDOW = 2.0
"""Seconds over which rates are counted; a sensor that says nothing for longer is silent."""


class _Events:
    """Moments at which something happened, seconds; those of the last `WINDOW` are kept."""

    def __init__(self) -> None:
        self._moments: deque[float] = deque()
        self.latest = -math.inf

    def add(self, now: float) -> None:
        self._moments.append(now)
        self.latest = now
        self._forget(now)

    def rate(self, now: float) -> float:
        """Return events per second."""
        self._forget(now)
        return len(self._moments) / WINDOW

    def _forget(self, now: float) -> None:
        while self._moments and now - self._moments[0] > WINDOW:
            self._moments.popleft()


@dataclass
class _Sensor:
    """What is known of one sensor.

    Attributes:
        heard: its messages.
        used: the frames that it took part in.
        latest: its part in the latest frame.
        problem: why it took no part against the user's will, the last time that this was so.
    """

    heard: _Events = field(default_factory=_Events)
    used: _Events = field(default_factory=_Events)
    latest: SensorUse | None = None
    problem: str = "none"


class Diagnostics:
    """Collects what happened and tells it as diagnostic_msgs/DiagnosticArray. `now` is in seconds, monotonic.

    The methods may be called from several threads.

    Args:
        sensors: names of all configured sensors, in the order in which they are told of.

    Attributes:
        model: what runs, for people.
        model_error: why the model that was asked for last could not be loaded; empty where it was.
        frame_error: what the last frame that failed raised; empty after a good one.
    """

    def __init__(self, sensors: Sequence[str] = ()) -> None:
        self.model = ""
        self.model_error = ""
        self.frame_error = ""
        self._lock = threading.Lock()
        self._sensors = {name: _Sensor() for name in sensors}
        self._frames = _Events()

    def add_message(self, sensor: str, now: float) -> None:
        """Note that a sensor sent something."""
        with self._lock:
            self._sensors[sensor].heard.add(now)

    def add_frame(self, sensors: Sequence[SensorUse], now: float) -> None:
        """Note which sensors took part in a frame."""
        with self._lock:
            self._frames.add(now)
            for use in sensors:
                sensor = self._sensors[use.name]
                sensor.latest = use
                if use.used:
                    sensor.used.add(now)
                elif use.reason not in ON_PURPOSE:
                    sensor.problem = use.reason

    def report(self, stamp: Time, now: float, processed: int, dropped: int, active: bool = True) -> DiagnosticArray:
        """Return the state of things.

        Args:
            processed, dropped: frames, since the node was activated.
            active: whether frames are to be expected.
        """
        message = DiagnosticArray()
        message.header.stamp = stamp
        with self._lock:
            frames = self._frame_status(now, processed, dropped, active)
            sensors = [self._sensor_status(name, sensor, now) for name, sensor in self._sensors.items()]
        message.status = [frames, self._model_status(), *sensors]
        return message

    def _frame_status(self, now: float, processed: int, dropped: int, active: bool) -> DiagnosticStatus:
        rate = self._frames.rate(now)
        level, text = DiagnosticStatus.OK, f"{rate:.1f} frames/s"
        if not active:
            text = "not active"
        elif self.frame_error:
            level, text = DiagnosticStatus.ERROR, self.frame_error
        elif rate == 0:
            level, text = DiagnosticStatus.STALE, "no frames"
        return _status("frames", level, text, processed=processed, dropped=dropped, rate=f"{rate:.2f}")

    def _model_status(self) -> DiagnosticStatus:
        level = DiagnosticStatus.WARN if self.model_error else DiagnosticStatus.OK
        return _status("model", level, self.model_error or self.model, running=self.model)

    def _sensor_status(self, name: str, sensor: _Sensor, now: float) -> DiagnosticStatus:
        silence = now - sensor.heard.latest
        level, text = self._sensor_state(sensor, silence, now)
        return _status(
            f"sensor {name}",
            level,
            text,
            rate=f"{sensor.heard.rate(now):.2f}",
            used_rate=f"{sensor.used.rate(now):.2f}",
            last_heard="never" if math.isinf(silence) else f"{silence:.1f} s ago",
            age="unknown" if sensor.latest is None or math.isnan(sensor.latest.age) else f"{sensor.latest.age:.3f} s",
            last_problem=sensor.problem,
        )

    def _sensor_state(self, sensor: _Sensor, silence: float, now: float) -> tuple[bytes, str]:
        latest = sensor.latest
        if latest is not None and latest.reason in ON_PURPOSE:
            return DiagnosticStatus.OK, latest.reason
        if math.isinf(silence):
            return DiagnosticStatus.STALE, "no data"
        if silence > WINDOW:
            return DiagnosticStatus.STALE, f"silent for {silence:.0f} s"
        if latest is None or now - self._frames.latest > WINDOW:
            return DiagnosticStatus.OK, "heard, but no frames"
        return (DiagnosticStatus.OK, "used") if latest.used else (DiagnosticStatus.WARN, latest.reason)


def _status(name: str, level: bytes, message: str, **values: object) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(
        level=level, name=f"aqr_perception: {name}", message=message, hardware_id="aqr_perception", values=pairs
    )
