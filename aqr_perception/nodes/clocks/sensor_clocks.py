# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Comparison of the sensors' stamps with each other and with the node's clock."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aqr_perception.nodes.clocks.sensor_stamps import WINDOW, SensorStamps
from aqr_perception.nodes.clocks.stamp_sequence import TOLERANCE_NS, Arrival, Step

_VOTING = 2.0
"""Seconds after its last message during which a sensor counts among those that may go back in time."""

_LONGEST_LAG_NS = 60_000_000_000
"""Stamps further behind the node's clock are those of a recording; nearer ones are late data."""

_FASTEST_PLAYBACK = 100.0


@dataclass(frozen=True)
class ClockReport:
    """State of one sensor's stamps.

    Attributes:
        fault: what is wrong with the stamps; empty if nothing is.
        to_clock: stamps minus the node's clock in seconds, latency included; NaN if unknown.
        to_others: stamps minus those of the sensors that agree with each other, in seconds; NaN if unknown.
        odd: number of messages whose stamps were missing or leapt.
        by_arrival: whether the sensor's messages are used by their time of arrival.
    """

    fault: str = ""
    to_clock: float = math.nan
    to_others: float = math.nan
    odd: int = 0
    by_arrival: bool = False


@dataclass
class Accepted:
    """Consequences of a message.

    Attributes:
        messages: sensors and messages that have become usable by their stamps, in their order of arrival.
        restarted: sensors whose earlier messages belong to another time.
        jump: seconds by which the time of most sensors went back; 0 without a jump.
    """

    messages: list[tuple[str, Any]] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    jump: float = 0.0


class SensorClocks:
    """Judge of the sensors' stamps: continuous or not, and in agreement with the others and the clock or not.

    The sensors that agree with each other are the reference: those that also agree with the node's clock if there are
    any, and the largest group otherwise. So a recording that is played without /clock is no fault. A single sensor
    ahead of the clock is a fault, because no measurement comes from the future.

    Args:
        sensors: names of all sensors; of equally good groups, that of the earliest one is the reference.
        narrow_ns: a sensor further ahead of the clock is a fault if the others are not; in nanoseconds.
        wide_ns: sensors further apart do not agree, in nanoseconds; at least `TOLERANCE_NS`. The tolerance grows with
            the speed at which a recording is played.

    Attributes:
        coarse: whether the node's clock may lag behind the stamps a little, as /clock does.
    """

    def __init__(self, sensors: Sequence[str], narrow_ns: int, wide_ns: int = TOLERANCE_NS) -> None:
        self._clocks = {name: SensorStamps() for name in sensors}
        self._narrow_ns = narrow_ns
        self._wide_ns = max(wide_ns, TOLERANCE_NS)
        self._has_clock = False
        self._reference_ns: int | None = None
        self._compared = -math.inf
        self._speed = 1.0
        self._speed_since: tuple[float, int] | None = None
        self.coarse = False

    @property
    def has_clock(self) -> bool:
        """Whether `Arrival.clock_ns` is the node's clock; otherwise, sensors are compared with each other only."""
        return self._has_clock

    @has_clock.setter
    def has_clock(self, has_clock: bool) -> None:
        if has_clock != self._has_clock:
            self.forget()
        self._has_clock = has_clock

    def add(self, sensor: str, stamp_ns: int, arrival: Arrival, message: Any) -> Accepted:
        """Judge a message by its stamp: the time of measurement in nanoseconds."""
        clock, accepted = self._clocks[sensor], Accepted()
        if self._is_ahead(stamp_ns - arrival.clock_ns, arrival.steady):
            clock.add_odd(self._difference(stamp_ns - arrival.clock_ns, alone=False), arrival)
            return accepted
        step = clock.sequence.add(stamp_ns, arrival, message)
        if step in (Step.NEXT, Step.LATE):
            clock.add_good(stamp_ns, arrival)
            accepted.messages.append((sensor, message))
        elif step is Step.REPEATED:
            clock.add_repeated(arrival)
        else:
            accepted = self._follow_leap(sensor, stamp_ns - arrival.clock_ns, arrival, step)
        self._compare(arrival.steady)
        return accepted

    def add_unstamped(self, sensor: str, arrival: Arrival) -> None:
        """Take a message whose header has no stamp."""
        self._clocks[sensor].add_unstamped(arrival)
        self._compare(arrival.steady)

    def forget(self) -> None:
        """Forget all stamps, because time jumped."""
        for clock in self._clocks.values():
            clock.reset()
        self._reference_ns = self._speed_since = None
        self._speed = 1.0

    @property
    def all_right(self) -> bool:
        """Whether nothing is wrong with any sensor's stamps."""
        return not any(clock.fault for clock in self._clocks.values())

    def fault(self, sensor: str) -> str:
        """Return what is wrong with a sensor's stamps; empty if nothing is."""
        return self._clocks[sensor].fault

    def healthy(self, sensor: str, now: float) -> bool:
        """Return whether a sensor sends stamps in which nothing is wrong."""
        clock = self._clocks[sensor]
        return not clock.fault and now - clock.last_good <= _VOTING

    def now_ns(self, arrival: Arrival) -> int:
        """Return the present in the time of the reference sensors, minus their latency."""
        return arrival.clock_ns + (self._reference_ns or 0)

    @property
    def has_reference(self) -> bool:
        """Whether some sensor's stamps are known to be right."""
        return self._reference_ns is not None

    @property
    def agree_with_clock(self) -> bool:
        """Whether the time of the reference sensors is that of the node's clock, latency included."""
        return self._reference_ns is not None and self._is_late(self._reference_ns)

    @property
    def to_clock(self) -> float:
        """Time of the reference sensors minus the node's clock, in seconds; NaN if unknown."""
        return math.nan if self._reference_ns is None or not self._has_clock else self._reference_ns / 1e9

    def report(self, sensor: str, now: float) -> ClockReport:
        """Return the state of a sensor's stamps."""
        clock = self._clocks[sensor]
        offset = clock.offset_ns / 1e9 if clock.comparable(now) else math.nan
        to_others = math.nan if self._reference_ns is None else offset - self._reference_ns / 1e9
        return ClockReport(clock.fault, offset if self._has_clock else math.nan, to_others, clock.odd)

    # --- Leaps -----------------------------------------------------------------------------------------------------

    def _follow_leap(self, sensor: str, offset_ns: int, arrival: Arrival, step: Step) -> Accepted:
        """Accept the new time of most sensors at once, and that of one sensor after some messages."""
        now = arrival.steady
        leaping = self._leaping(offset_ns, now)
        sending = (clock for clock in self._clocks.values() if clock.sequence.newest_ns is not None)
        voters = sum(clock.heard_within(_VOTING, now) for clock in sending)
        if self.agree_with_clock and not self._is_late(offset_ns):
            voters += 1  # the clock has not leapt
        if 2 * len(leaping) > voters:
            return self._follow_most(leaping)
        accepted = Accepted()
        self._clocks[sensor].add_odd(self._difference(offset_ns, alone=self._reference_ns is None), arrival)
        if step is Step.RESTART:
            accepted.restarted.append(sensor)
            self._release([sensor], accepted)
        return accepted

    def _leaping(self, offset_ns: int, now: float) -> list[str]:
        """Return the sensors that have leapt to about the same time."""

        def has_leapt(clock: SensorStamps) -> bool:
            held = clock.sequence.held
            if not held or not clock.heard_within(_VOTING, now):
                return False
            return abs(held[-1].stamp_ns - held[-1].arrival.clock_ns - offset_ns) <= self._apart_ns

        return [name for name, clock in self._clocks.items() if has_leapt(clock)]

    def _follow_most(self, leaping: list[str]) -> Accepted:
        """Continue from the new time of most sensors; the others continue from their next messages."""
        back_ns = 0
        for name in leaping:
            sequence = self._clocks[name].sequence
            back_ns = max(back_ns, (sequence.newest_ns or 0) - sequence.held[0].stamp_ns)
        accepted = Accepted(jump=back_ns / 1e9)
        for name, clock in self._clocks.items():
            if name not in leaping:
                clock.reset()
            clock.sequence_fault = clock.clock_fault = ""
        self._reference_ns = self._speed_since = None
        self._release(leaping, accepted)
        return accepted

    def _release(self, sensors: Sequence[str], accepted: Accepted) -> None:
        """Let sensors continue from their held messages."""
        released: list[tuple[Arrival, str, Any]] = []
        for name in sensors:
            clock = self._clocks[name]
            clock.forget_offsets()
            for held in clock.sequence.take_held():
                clock.add_good(held.stamp_ns, held.arrival)
                released.append((held.arrival, name, held.message))
        released.sort(key=lambda one: one[0])
        accepted.messages.extend((name, message) for _, name, message in released)

    # --- Comparison ------------------------------------------------------------------------------------------------

    def _compare(self, now: float) -> None:
        """Find the reference, and judge the sensors that send stamps by it."""
        sending = {name: clock.offset_ns for name, clock in self._clocks.items() if clock.comparable(now)}
        best = max(filter(self._may_be_reference, self._groups(sending)), key=self._rank, default=[])
        if best:
            self._reference_ns, self._compared = self._offset_ns(best), now
            self._measure_speed(best, now)
        for name in sending:
            offset_ns = sending[name]
            self._clocks[name].clock_fault = "" if name in best else self._difference(offset_ns, alone=not best)

    def _measure_speed(self, reference: list[str], now: float) -> None:
        """Compare the reference sensors' time with the monotonic clock, once a second."""
        newest_ns = max(self._clocks[name].sequence.newest_ns or 0 for name in reference)
        since = self._speed_since
        if since is not None and now - since[0] >= WINDOW:
            speed = (newest_ns - since[1]) / 1e9 / (now - since[0])
            self._speed, since = min(max(speed, 1.0), _FASTEST_PLAYBACK), None
        self._speed_since = since or (now, newest_ns)

    @property
    def _apart_ns(self) -> int:
        """Offsets further apart than this do not agree: at high speed, a small delay is a long time."""
        return round(self._wide_ns * self._speed)

    def _groups(self, offsets_ns: dict[str, int]) -> list[list[str]]:
        """Return the sensors around each sensor, by their offsets; one group if all agree."""
        values = offsets_ns.values()
        if not values:
            return []
        if max(values) - min(values) <= self._apart_ns:
            return [list(offsets_ns)]
        return [
            [name for name, other_ns in offsets_ns.items() if abs(other_ns - own_ns) <= self._apart_ns]
            for own_ns in values
        ]

    def _may_be_reference(self, group: list[str]) -> bool:
        """Return whether a group can be right: not a sensor ahead of the clock, nor known to be wrong."""
        offset_ns = self._offset_ns(group)
        if self._is_near(offset_ns):
            return True
        if self._has_clock and len(group) == 1 and offset_ns > 0:
            return False
        return not all(self._clocks[name].fault for name in group)

    def _is_ahead(self, offset_ns: int, now: float) -> bool:
        """Return whether a stamp is ahead of the node's clock, whose time the other sensors have."""
        if self._reference_ns is None or self.coarse or now - self._compared > WINDOW:
            return False
        if not self._is_near(self._reference_ns):
            return False
        return self._narrow_ns < offset_ns - max(self._reference_ns, 0) <= TOLERANCE_NS

    def _rank(self, group: list[str]) -> tuple[float, ...]:
        offset_ns = self._offset_ns(group)
        near = self._is_near(offset_ns)
        unquestioned = sum(not self._clocks[name].fault for name in group)
        return near, self._is_late(offset_ns), len(group), unquestioned, -abs(offset_ns) if near else 0

    def _offset_ns(self, group: list[str]) -> int:
        """Return the median of the sensors' offsets; of an even number, the one that is further behind."""
        return sorted(self._clocks[name].offset_ns for name in group)[(len(group) - 1) // 2]

    def _is_near(self, offset_ns: int) -> bool:
        """Return whether an offset from the node's clock is so small that both show the same time."""
        return self._has_clock and abs(offset_ns) <= TOLERANCE_NS

    def _is_late(self, offset_ns: int) -> bool:
        """Return whether an offset from the node's clock can be a latency."""
        return self._has_clock and -_LONGEST_LAG_NS <= offset_ns <= TOLERANCE_NS

    def _difference(self, offset_ns: int, alone: bool) -> str:
        """Return how far stamps are from the reference, or from the node's clock without one."""
        offset_ns -= 0 if alone or self._reference_ns is None else self._reference_ns
        direction = "ahead of" if offset_ns > 0 else "behind"
        whom = "the node's clock" if alone else "the other sensors"
        return f"stamps {abs(offset_ns) / 1e9:.1f} s {direction} {whom}"
