"""State of the sensors, the model and the frames, for /diagnostics."""

import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from aqr_perception.nodes.clocks.sensor_clocks import ClockReport
from aqr_perception.nodes.input.frame_request import INTENDED, SensorUse

WINDOW = 2.0
"""Seconds over which rates are measured; a sensor without messages for longer is silent."""


AGES_WINDOW = 10.0
"""Seconds over which the ages of the outputs are reported."""


@dataclass(frozen=True)
class TimeReport:
    """State of the time of sensors and transforms.

    Attributes:
        sensors: state of each sensor's stamps.
        stamps_to_clock: seconds from the node's clock to the time of the sensors, latency included; NaN if unknown.
        in_clock_time: whether the node's clock shows the time of the stamps.
        clock_runs: whether the node's clock shows a time; without /clock, simulated time is 0.
        late_sweeps: number of sweeps that arrived after a later frame.
        transforms: what is wrong with transforms.
    """

    sensors: Mapping[str, ClockReport] = field(default_factory=dict)
    stamps_to_clock: float = math.nan
    in_clock_time: bool = False
    clock_runs: bool = True
    late_sweeps: int = 0
    transforms: Sequence[str] = ()


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
        time: state of the stamps, for the next report.
    """

    def __init__(self, sensors: Sequence[str] = ()) -> None:
        self.model = ""
        self.model_error = ""
        self.frame_error = ""
        self.time = TimeReport()
        self._ages: deque[tuple[float, float]] = deque()
        self._late, self._latest_late, self._late_error = 0, -math.inf, ""
        self._out_of_order = 0
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

    def add_age(self, age: float, now: float) -> None:
        """Add the age of a published result in seconds: from the measurement to the publication."""
        with self._lock:
            self._ages.append((now, age))
            self._late_error = ""

    def add_late(self, age: float, max_latency: float, now: float) -> None:
        """Count a result that is dropped for its age."""
        with self._lock:
            self._late += 1
            self._latest_late = now
            self._late_error = f"results are dropped: {age:.2f} s old, at most max_latency = {max_latency:g} s allowed"

    def count_out_of_order(self) -> None:
        """Count a result that is dropped because a newer one was published, or because time jumped back."""
        with self._lock:
            self._out_of_order += 1

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
        message.status = [frames, self._model_status(), *sensors, self._time_status()]
        return message

    def _add_use(self, sensor: _SensorHistory, use: SensorUse, now: float) -> None:
        sensor.last_use = use
        if use.used:
            sensor.frames.add(now)
        elif use.reason not in INTENDED:
            sensor.last_problem = use.reason

    def _frame_status(self, now: float, processed: int, dropped: int, active: bool) -> DiagnosticStatus:
        rate = self._frames.per_second(now)
        level, text = self._frame_state(rate, now, active)
        counts = {"processed": processed, "dropped": dropped, "too_old": self._late, "out_of_order": self._out_of_order}
        return _status("frames", level, text, **counts, rate=f"{rate:.2f}", **self._age_values(now))

    def _age_values(self, now: float) -> dict[str, str]:
        """Return the ages of the outputs of the last seconds, from the measurement to the publication."""
        while self._ages and now - self._ages[0][0] > AGES_WINDOW:
            self._ages.popleft()
        ages = [age for _, age in self._ages if not math.isnan(age)]
        if not ages:
            return dict.fromkeys(("age_p50", "age_p95", "age_max"), "unknown")
        p50, p95 = np.percentile(ages, (50, 95))
        return {"age_p50": f"{p50:.3f} s", "age_p95": f"{p95:.3f} s", "age_max": f"{max(ages):.3f} s"}

    def _frame_state(self, rate: float, now: float, active: bool) -> tuple[bytes, str]:
        if not active:
            return DiagnosticStatus.OK, "not active"
        if self._late_error and now - self._latest_late <= WINDOW:
            return DiagnosticStatus.ERROR, self._late_error
        if self.frame_error:
            return DiagnosticStatus.ERROR, self.frame_error
        if rate == 0:
            return DiagnosticStatus.STALE, "no frames"
        return DiagnosticStatus.OK, f"{rate:.1f} frames/s"

    def _model_status(self) -> DiagnosticStatus:
        level = DiagnosticStatus.WARN if self.model_error else DiagnosticStatus.OK
        return _status("model", level, self.model_error or self.model, running=self.model)

    def _time_status(self) -> DiagnosticStatus:
        time = self.time
        level, text = self._time_state()
        offset = _seconds(time.stamps_to_clock)
        return _status("time", level, text, stamps_to_clock=offset, late_sweeps=time.late_sweeps)

    def _time_state(self) -> tuple[bytes, str]:
        time = self.time
        faults = [f"{name}: {report.fault}" for name, report in time.sensors.items() if report.fault]
        faults += time.transforms
        if faults:
            return DiagnosticStatus.WARN, "; ".join(faults)
        if not time.clock_runs:
            return DiagnosticStatus.WARN, (
                "use_sim_time is true, but /clock shows no time; publish /clock or set use_sim_time to false. "
                "Ages are measured from the arrival of the data"
            )
        if math.isnan(time.stamps_to_clock) or time.in_clock_time:
            return DiagnosticStatus.OK, "stamps and clock agree" if time.in_clock_time else "no stamps"
        direction = "ahead of" if time.stamps_to_clock > 0 else "behind"
        return DiagnosticStatus.WARN, (
            f"all stamps are {abs(time.stamps_to_clock):.0f} s {direction} the node's clock; play a recording with "
            "/clock and use_sim_time, or synchronise the clocks. Ages are measured from the arrival of the data"
        )

    def _sensor_status(self, name: str, sensor: _SensorHistory, now: float) -> DiagnosticStatus:
        clock = self.time.sensors.get(name, ClockReport())
        level, text = self._sensor_state(sensor, clock, now)
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
            stamps=clock.fault or "right",
            stamps_to_clock=_seconds(clock.to_clock),
            stamps_to_others=_seconds(clock.to_others),
            odd_stamps=clock.odd,
        )

    def _sensor_state(self, sensor: _SensorHistory, clock: ClockReport, now: float) -> tuple[bytes, str]:
        use, silence = sensor.last_use, now - sensor.messages.latest
        if use is not None and use.reason in INTENDED:
            return DiagnosticStatus.OK, use.reason
        if math.isinf(silence):
            return DiagnosticStatus.STALE, "no data"
        if silence > WINDOW:
            return DiagnosticStatus.STALE, f"silent for {silence:.0f} s"
        if clock.fault:
            use_of_it = "used by its time of arrival" if clock.by_arrival else "left out (clock_policy)"
            return DiagnosticStatus.WARN, f"{clock.fault}: {use_of_it}"
        if use is None or now - self._frames.latest > WINDOW:
            return DiagnosticStatus.OK, "receiving data, but no frames"
        if not use.used:
            return DiagnosticStatus.WARN, use.reason
        return (DiagnosticStatus.WARN, f"used, but {use.doubt}") if use.doubt else (DiagnosticStatus.OK, "used")


def _seconds(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.3f} s"


def _status(name: str, level: bytes, message: str, **values: object) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(
        level=level, name=f"aqr_perception: {name}", message=message, hardware_id="aqr_perception", values=pairs
    )
