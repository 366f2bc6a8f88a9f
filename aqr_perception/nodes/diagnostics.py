# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""State of the sensors, the model, the frames and the node, for /diagnostics."""

import math
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from aqr_perception.decoding.message_error import MessageError
from aqr_perception.frame import Frame
from aqr_perception.nodes.clocks.sensor_clocks import ClockReport
from aqr_perception.nodes.health.frame_health import FrameHealth
from aqr_perception.nodes.health.frame_times import FrameTimes
from aqr_perception.nodes.health.picture_content import picture_fault
from aqr_perception.nodes.health.sensor_health import SensorHealth, State, seconds_text
from aqr_perception.nodes.health.time_report import TimeReport
from aqr_perception.nodes.health.topic_links import LinkState
from aqr_perception.nodes.input.frame_request import SensorUse
from aqr_perception.nodes.stamps import stamp_to_ns
from aqr_perception.stage_clock import StageClock


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
        frames: health of the frames, of which only `error` and `stuck` may be set directly.
        time: state of the stamps, for the next report.
    """

    def __init__(
        self, sensors: Sequence[str] = (), node_name: str = "/aqr_perception", topics: Mapping[str, str] | None = None
    ) -> None:
        self.state, self.state_error = "unconfigured", ""
        self.callbacks_stuck = 0.0
        self.model, self.model_error, self.device = "", "", ""
        self.frames = FrameHealth()
        self._node_name = node_name.lstrip("/")
        self._host = socket.gethostname()
        self.time = TimeReport()
        self._times = FrameTimes()
        self._lock = threading.Lock()
        self._sensors = {name: SensorHealth((topics or {}).get(name, "")) for name in sensors}

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

    def add_calibration(self, sensor: str, info: Any, now: float, live: bool = True) -> str:
        """Take a camera's CameraInfo; return the names of the parts that differ from the one before.

        Args:
            live: whether it was sent now; otherwise it was latched before.
        """
        with self._lock:
            return self._sensors[sensor].calibration.add(info, now, live)

    def set_links(self, sensor: str, data: LinkState, calibration: LinkState, now: float) -> None:
        """Set why the topics of a sensor's data and calibration bring no messages."""
        with self._lock:
            self._sensors[sensor].set_links(data, calibration, now)

    def add_frame(
        self, sensors: Sequence[SensorUse], now: float, model_frame_doubts: Sequence[MessageError] = ()
    ) -> None:
        """Count a frame and record which sensors it used, and what is odd about the place of its model frame."""
        with self._lock:
            self.frames.frames.add(now)
            self.frames.doubts["model frame"] = "; ".join(map(str, model_frame_doubts))
            for use in sensors:
                self._sensors[use.name].add_use(use, now)
            for sensor in self._sensors.values():
                own = (doubt for doubt in model_frame_doubts if sensor.topic in doubt.topic.split(", "))
                sensor.model_frame_doubts = tuple(doubt.summary for doubt in own)

    def set_frame_doubt(self, subject: str, text: str) -> None:
        """Set what is odd about the published frames as to a subject; empty if nothing is."""
        with self._lock:
            self.frames.doubts[subject] = text

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
            self.frames.outputs.add(now)

    def forget_rates(self) -> None:
        """Forget the usual rates, because the node starts or time jumped back."""
        with self._lock:
            self.frames.forget_rates()
            for sensor in self._sensors.values():
                sensor.messages.forget_usual()

    def add_age(self, age: float, now: float) -> None:
        """Add the age of a published result in seconds: from the measurement to the publication."""
        with self._lock:
            self.frames.add_age(age, now)

    def add_times(self, stages: StageClock, now: float) -> None:
        """Add what the stages of a published result took."""
        with self._lock:
            self._times.add(stages, now)

    def add_late(self, age: float, max_latency: float, now: float) -> None:
        """Count a result that is dropped for its age."""
        with self._lock:
            self.frames.add_late(age, max_latency, now)

    def count_out_of_order(self) -> None:
        """Count a result that is dropped because a newer one was published, or because time jumped back."""
        with self._lock:
            self.frames.out_of_order += 1

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
        state = self.frames.state(now)
        if self.state_error:
            state = DiagnosticStatus.ERROR, self.state_error
        elif not active:
            state = DiagnosticStatus.OK, "not active"
        elif state[0] in (DiagnosticStatus.OK, DiagnosticStatus.WARN) and self._all_silent(now):
            # The last images may give one more frame, after which its silence would be found late.
            state = DiagnosticStatus.STALE, "no frames"
        counts = {"processed": processed, "dropped": dropped}
        return self._status("frames", state, self._host, **counts, **self.frames.values(now), **self._times.values(now))

    def _all_silent(self, now: float) -> bool:
        """Return whether the sensors in use sent something, and none sends anything any more."""
        used = [sensor for sensor in self._sensors.values() if not sensor.is_left_out]
        return any(math.isfinite(sensor.messages.latest) for sensor in used) and all(
            sensor.is_silent(now) for sensor in used
        )

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
        return self._status("time", time.state, self._host, stamps_to_clock=offset, late_sweeps=time.late_sweeps)

    def _sensor_status(self, name: str, sensor: SensorHealth, now: float) -> DiagnosticStatus:
        clock = self.time.sensors.get(name, ClockReport())
        state = sensor.state(now, self.frames.frames.overdue(now), clock)
        return self._status(f"sensor {name}", state, sensor.topic or self._host, **sensor.values(now, clock))

    def _status(self, name: str, health: State, hardware_id: str, **values: object) -> DiagnosticStatus:
        pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        level, text = health
        return DiagnosticStatus(
            level=level, name=f"{self._node_name}: {name}", message=text, hardware_id=hardware_id, values=pairs
        )
