# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Health of one sensor: its messages, its use in frames, and what its data shows."""

import math
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticStatus

from aqr_perception.nodes.clocks.sensor_clocks import ClockReport
from aqr_perception.nodes.health.calibration_health import CalibrationHealth
from aqr_perception.nodes.health.event_rate import WINDOW, EventRate
from aqr_perception.nodes.health.repetition import Repetition
from aqr_perception.nodes.health.topic_links import NO_FAULT, LinkState
from aqr_perception.nodes.input.frame_request import INTENDED, SensorUse

State = tuple[bytes, str]
"""Level of a DiagnosticStatus, and its text."""


@dataclass
class SensorHealth:
    """Recent history of one sensor. Times are in seconds of a monotonic clock.

    Attributes:
        topic: topic of its data.
        messages: rate of the received messages.
        frames: rate of the frames that used the sensor.
        last_use: use of the sensor in the latest frame.
        last_problem: the latest reason why an enabled sensor was not used.
        drops: number of frames that left the enabled sensor out, and of messages dropped at their arrival.
        lost: number of messages that the middleware lost.
        calibration: health of a camera's calibration.
        message_data, decoded_data: repetition in messages, and in decoded pictures.
        picture_fault: what is wrong with the latest picture.
        model_frame_doubts: what is odd about the place of the model frame, as this sensor shows.
    """

    topic: str = ""
    messages: EventRate = field(default_factory=EventRate)
    frames: EventRate = field(default_factory=EventRate)
    last_use: SensorUse | None = None
    last_problem: str = "none"
    drops: int = 0
    lost: int = 0
    calibration: CalibrationHealth = field(default_factory=CalibrationHealth)
    message_data: Repetition = field(default_factory=Repetition)
    decoded_data: Repetition = field(default_factory=Repetition)
    picture_fault: str = ""
    model_frame_doubts: tuple[str, ...] = ()
    _unused_since: float = math.inf
    _dropped: tuple[float, str] = (-math.inf, "")
    _data: LinkState = NO_FAULT
    _checked_at: float = -math.inf

    def set_links(self, data: LinkState, calibration: LinkState, now: float) -> None:
        """Set why the topics of data and calibration bring no messages, from the ROS graph."""
        self._data, self._checked_at = data, now
        self.calibration.set_link(calibration, now)

    def add_use(self, use: SensorUse, now: float) -> None:
        """Record the use of the sensor in a frame."""
        self.last_use = use
        if use.used:
            self.frames.add(now)
        elif use.reason not in INTENDED:
            self.drops += 1
            self.last_problem = use.reason
            self._unused_since = min(self._unused_since, now)
        if use.used or use.reason in INTENDED:
            self._unused_since = math.inf

    def add_dropped(self, reason: str, now: float) -> None:
        """Record a message that is dropped at its arrival."""
        self.drops += 1
        self.last_problem = reason
        self._dropped = (now, reason)

    @property
    def is_left_out(self) -> bool:
        """Whether the latest frame left the sensor out on purpose."""
        return self.last_use is not None and self.last_use.reason in INTENDED

    def is_silent(self, now: float) -> bool:
        """Return whether the sensor sends nothing: no longer, or not yet."""
        # Of a rare sensor, silence says nothing for a while, but the loss of its publisher does.
        is_cut = self._data.is_cut and self._checked_at > self.messages.latest
        return is_cut or self.messages.overdue(now)

    def state(self, now: float, frames_stopped: bool, clock: ClockReport) -> State:
        """Return the sensor's state.

        Args:
            frames_stopped: whether no frames are made, so that the latest use says nothing.
            clock: state of the sensor's stamps.
        """
        use = self.last_use
        if use is not None and self.is_left_out:
            return DiagnosticStatus.OK, use.reason
        dropped_at, drop_reason = self._dropped
        if now - dropped_at <= WINDOW and dropped_at > self.messages.latest:
            return DiagnosticStatus.ERROR, f"messages are dropped: {drop_reason}"
        if math.isinf(self.messages.latest):
            level = DiagnosticStatus.ERROR if self._data.mismatch else DiagnosticStatus.STALE
            return level, _because("no data", self._data.reason)
        if self.is_silent(now):
            silence = f"silent for {now - self.messages.latest:.1f} s"
            return DiagnosticStatus.STALE, _because(silence, self._data.reason)
        if clock.fault:
            use_of_it = "used by its time of arrival" if clock.by_arrival else "left out (clock_policy)"
            in_use = clock.by_arrival and use is not None and use.used and not frames_stopped
            return DiagnosticStatus.WARN, ", ".join(
                [f"{clock.fault}: {use_of_it}", *(self._doubts(now) if in_use else ())]
            )
        if use is None or frames_stopped:
            return DiagnosticStatus.OK, "receiving data, but no frames"
        if not use.used:
            lasting = now - self._unused_since > WINDOW
            reason = _because(use.reason, self.calibration.reason) if use.reason == "no camera_info" else use.reason
            return DiagnosticStatus.ERROR if lasting else DiagnosticStatus.WARN, use.detail or reason
        doubts = self._doubts(now)
        return (DiagnosticStatus.WARN, f"used, but {', '.join(doubts)}") if doubts else (DiagnosticStatus.OK, "used")

    def values(self, now: float, clock: ClockReport) -> dict[str, str]:
        """Return the values of the sensor's status."""
        silence = now - self.messages.latest
        age = math.nan if self.last_use is None else self.last_use.age
        return {
            "topic": self.topic,
            "rate": f"{self.messages.per_second(now):.2f}",
            "usual_rate": "unknown" if math.isnan(self.messages.usual) else f"{self.messages.usual:.2f}",
            "used_rate": f"{self.frames.per_second(now):.2f}",
            "last_heard": "never" if math.isinf(silence) else f"{silence:.1f} s ago",
            "age": seconds_text(age),
            "drops": str(self.drops),
            "lost": str(self.lost),
            "last_problem": self.last_problem,
            "doubt": (self.last_use.detail if self.last_use is not None and self.last_use.used else "") or "none",
            "calibration_changes": str(self.calibration.changes),
            "stamps": clock.fault or "right",
            "stamps_to_clock": seconds_text(clock.to_clock),
            "stamps_to_others": seconds_text(clock.to_others),
            "odd_stamps": str(clock.odd),
        }

    def _doubts(self, now: float) -> list[str]:
        """Return what is odd about the data of a used sensor."""
        said = self.last_use.doubt if self.last_use is not None else ""
        doubts = [doubt for doubt in (said, *self.model_frame_doubts, self.picture_fault) if doubt]
        doubts += self.calibration.doubts(now)
        frozen = max(self.message_data.seconds(now), self.decoded_data.seconds(now))
        if frozen:
            doubts.append(f"frozen: the same data under new stamps for {frozen:.1f} s")
        slow = self.messages.slow(now)
        if not math.isnan(slow):
            doubts.append(f"slow: {slow:.1f} Hz, usually {self.messages.usual:.1f} Hz")
        return doubts


def _because(text: str, reason: str) -> str:
    return f"{text}: {reason}" if reason else text


def seconds_text(value: float) -> str:
    """Return seconds as text; ``unknown`` for NaN."""
    return "unknown" if math.isnan(value) else f"{value:.3f} s"
