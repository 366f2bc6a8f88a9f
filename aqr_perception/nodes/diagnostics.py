"""State of the sensors, the model, the frames and the node, for /diagnostics."""

import math
import socket
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from aqr_perception.frame import Frame
from aqr_perception.nodes.clocks.sensor_clocks import ClockReport
from aqr_perception.nodes.health.event_rate import WINDOW, EventRate
from aqr_perception.nodes.health.frame_times import FrameTimes
from aqr_perception.nodes.health.picture_content import picture_fault
from aqr_perception.nodes.health.sensor_health import SensorHealth, State, seconds_text
from aqr_perception.nodes.health.topic_links import LinkState
from aqr_perception.nodes.input.frame_request import SensorUse
from aqr_perception.nodes.stamps import stamp_to_ns
from aqr_perception.stage_clock import StageClock

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


class Diagnostics:
    """Collector of events, reported as diagnostic_msgs/DiagnosticArray. Thread-safe.

    `now` is the time in seconds of a monotonic clock.

    Args:
        sensors: names of all configured sensors, in the order of the report.
        node_name: full name of the node, with its namespace.
        topics: topic of each sensor's data.

    Attributes:
        state: lifecycle state of the node, in a word or two.
        state_error: why the node could not be configured; empty if it could.
        callbacks_stuck: seconds for which the node's callbacks have not run; 0 if they run.
        model: description of the running model.
        model_error: why the latest requested model failed to load; empty if it is loaded.
        device: the model's device.
        frame_error: error of the latest frame; empty after a frame without error.
        frame_stuck: what the frame in progress does if it takes far too long; empty if it does not.
        time: state of the stamps, for the next report.
    """

    def __init__(
        self, sensors: Sequence[str] = (), node_name: str = "/aqr_perception", topics: Mapping[str, str] | None = None
    ) -> None:
        self.state, self.state_error = "unconfigured", ""
        self.callbacks_stuck = 0.0
        self.model, self.model_error, self.device = "", "", ""
        self.frame_error, self.frame_stuck = "", ""
        self._node_name = node_name.lstrip("/")
        self._host = socket.gethostname()
        self.time = TimeReport()
        self._ages: deque[tuple[float, float]] = deque()
        self._times = FrameTimes()
        self._late, self._latest_late, self._late_error = 0, -math.inf, ""
        self._out_of_order = 0
        self._lock = threading.Lock()
        self._sensors = {name: SensorHealth((topics or {}).get(name, "")) for name in sensors}
        self._frames, self._outputs = EventRate(), EventRate()

    def add_message(self, sensor: str, now: float, message: Any = None) -> None:
        """Count a message from a sensor; a message given is compared with the one before."""
        with self._lock:
            health = self._sensors[sensor]
            health.messages.add(now)
            if message is not None:
                data = np.frombuffer(message.data, np.uint8)
                health.message_data.add(data, stamp_to_ns(message.header.stamp), now)

    def add_dropped(self, sensor: str, reason: str, now: float) -> None:
        """Count a message that is dropped at its arrival, with the reason."""
        with self._lock:
            self._sensors[sensor].add_dropped(reason, now)

    def add_lost(self, sensor: str, count: int) -> None:
        """Count messages that the middleware lost."""
        with self._lock:
            self._sensors[sensor].lost += count

    def set_link(self, sensor: str, data: LinkState, calibration: LinkState) -> None:
        """Set why the topics of a sensor's data and calibration bring no messages."""
        with self._lock:
            self._sensors[sensor].data, self._sensors[sensor].calibration = data, calibration

    def add_frame(self, sensors: Sequence[SensorUse], now: float) -> None:
        """Count a frame and record which sensors it used."""
        with self._lock:
            self._frames.add(now)
            for use in sensors:
                self._sensors[use.name].add_use(use, now)

    def inspect(self, frame: Frame, now: float) -> None:
        """Check what the cameras of a frame show."""
        faults = {view.name: picture_fault(view.image) for view in frame.cameras}
        with self._lock:
            for view in frame.cameras:
                health = self._sensors[view.name]
                health.picture_fault = faults[view.name]
                health.decoded_data.add(view.image, frame.stamp_ns - round(view.age * 1e9), now)

    def add_output(self, now: float) -> None:
        """Count a published result."""
        with self._lock:
            self._outputs.add(now)

    def forget_rates(self) -> None:
        """Forget the usual rates, because the node starts or time jumped back."""
        with self._lock:
            for rate in (self._frames, self._outputs, *(sensor.messages for sensor in self._sensors.values())):
                rate.forget_usual()

    def add_age(self, age: float, now: float) -> None:
        """Add the age of a published result in seconds: from the measurement to the publication."""
        with self._lock:
            self._ages.append((now, age))
            self._late_error = ""

    def add_times(self, stages: StageClock, now: float) -> None:
        """Add what the stages of a published result took."""
        with self._lock:
            self._times.add(stages, now)

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
        message.status = [frames, self._model_status(), *sensors, self._time_status(), self._node_status()]
        return message

    def _frame_status(self, now: float, processed: int, dropped: int, active: bool) -> DiagnosticStatus:
        rate = self._outputs.per_second(now)
        state = self._frame_state(rate, now, active)
        counts = {"processed": processed, "dropped": dropped, "too_old": self._late, "out_of_order": self._out_of_order}
        values = {"rate": f"{rate:.2f}", **self._age_values(now), **self._times.values(now)}
        return self._status("frames", state, self._host, **counts, **values)

    def _age_values(self, now: float) -> dict[str, str]:
        """Return the ages of the outputs of the last seconds, from the measurement to the publication."""
        while self._ages and now - self._ages[0][0] > AGES_WINDOW:
            self._ages.popleft()
        ages = [age for _, age in self._ages if not math.isnan(age)]
        if not ages:
            return dict.fromkeys(("age_p50", "age_p95", "age_max"), "unknown")
        p50, p95 = np.percentile(ages, (50, 95))
        return {"age_p50": f"{p50:.3f} s", "age_p95": f"{p95:.3f} s", "age_max": f"{max(ages):.3f} s"}

    def _frame_state(self, rate: float, now: float, active: bool) -> State:
        if self.state_error:
            return DiagnosticStatus.ERROR, self.state_error
        if not active:
            return DiagnosticStatus.OK, "not active"
        if self.frame_stuck:
            return DiagnosticStatus.ERROR, self.frame_stuck
        if self._late_error and now - self._latest_late <= WINDOW:
            return DiagnosticStatus.ERROR, self._late_error
        if self.frame_error:
            return DiagnosticStatus.ERROR, self.frame_error
        if self._outputs.overdue(now):
            return DiagnosticStatus.STALE, "no frames"
        slow = self._outputs.slow(now)
        if slow == slow:
            return DiagnosticStatus.WARN, f"slow: {slow:.1f} frames/s, usually {self._outputs.usual:.1f}"
        return DiagnosticStatus.OK, f"{rate:.1f} frames/s"

    def _model_status(self) -> DiagnosticStatus:
        level = DiagnosticStatus.WARN if self.model_error else DiagnosticStatus.OK
        text = self.model_error or self.model or "no model is loaded"
        return self._status("model", (level, text), self.device or self._host, running=self.model)

    def _node_status(self) -> DiagnosticStatus:
        return self._status("node", self._node_state(), self._host, state=self.state)

    def _node_state(self) -> State:
        if self.state_error:
            return DiagnosticStatus.ERROR, f"{self.state}: {self.state_error}"
        if self.callbacks_stuck:
            return DiagnosticStatus.ERROR, f"stuck: callbacks have not run for {self.callbacks_stuck:.1f} s"
        return DiagnosticStatus.OK, self.state

    def _time_status(self) -> DiagnosticStatus:
        time = self.time
        offset = seconds_text(time.stamps_to_clock)
        return self._status(
            "time", self._time_state(), self._host, stamps_to_clock=offset, late_sweeps=time.late_sweeps
        )

    def _time_state(self) -> State:
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

    def _sensor_status(self, name: str, sensor: SensorHealth, now: float) -> DiagnosticStatus:
        clock = self.time.sensors.get(name, ClockReport())
        state = sensor.state(now, self._frames.overdue(now), clock)
        return self._status(f"sensor {name}", state, sensor.topic or self._host, **sensor.values(now, clock))

    def _status(self, name: str, health: State, hardware_id: str, **values: object) -> DiagnosticStatus:
        pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        level, text = health
        return DiagnosticStatus(
            level=level, name=f"{self._node_name}: {name}", message=text, hardware_id=hardware_id, values=pairs
        )
