# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Stamps of one sensor, and what is wrong with them."""

import math
import statistics
from collections import deque
from typing import Any

from aqr_perception.nodes.clocks.stamp_sequence import Arrival, StampSequence

WINDOW = 1.0
"""Seconds after its last message during which a sensor's clock is compared with the others'.

As long as the tolerance: in a bag that is paused or played slowly, and without /clock, stamps fall behind the clock by
at most this much between two messages that are compared."""

_NAMED_AFTER = 0.35
"""Seconds without a stamp that continues the earlier ones, after which a sensor's stamps are at fault."""

_FEWEST_OFFSETS = 5
"""Number of recent offsets from which their median is used."""

NO_STAMP = "no stamp"
CONSTANT = "constant stamp"


class SensorStamps:
    """Stamps of one sensor, their recent offsets from the node's clock, and the verdict about them.

    Attributes:
        offset_ns: offset of the stamps from the node's clock: the median of the last second if that has enough
            messages, otherwise the last one.
        sequence_fault: what is wrong with the stamps of this sensor alone; empty if they advance.
        clock_fault: how far its clock is from the others'; empty if it agrees.
        odd: number of messages without a stamp or with one that leaps.
        last_good: arrival in seconds of the last message that continues the sequence.
    """

    def __init__(self) -> None:
        self.sequence: StampSequence[Any] = StampSequence()
        self.offset_ns = 0
        self.sequence_fault = self.clock_fault = ""
        self.odd = 0
        self.last_good = -math.inf
        self._offsets: deque[tuple[float, int]] = deque(maxlen=64)
        self._first_unstamped: float | None = None

    @property
    def fault(self) -> str:
        """What is wrong with the stamps; empty if nothing is."""
        return self.sequence_fault or self.clock_fault

    def add_good(self, stamp_ns: int, arrival: Arrival) -> None:
        """Take a stamp that continues the sequence."""
        self.last_good = arrival.steady
        self._first_unstamped = None
        self.sequence_fault = ""
        self._offsets.append((arrival.steady, stamp_ns - arrival.clock_ns))
        while arrival.steady - self._offsets[0][0] > WINDOW:
            self._offsets.popleft()
        recent = [offset for _, offset in self._offsets]
        self.offset_ns = statistics.median_low(recent) if len(recent) >= _FEWEST_OFFSETS else recent[-1]

    def add_repeated(self, arrival: Arrival) -> None:
        """Take a stamp that equals the newest one."""
        if self.sequence.repeats > 1 and self.sequence.seconds_without_advance(arrival) >= _NAMED_AFTER:
            self.sequence_fault = CONSTANT
            self._offsets.clear()

    def add_unstamped(self, arrival: Arrival) -> None:
        """Take a message without a stamp; now and then one is only odd."""
        self.odd += 1
        self.sequence.heard = arrival
        if self._first_unstamped is None:
            self._first_unstamped = arrival.steady
        if self.sequence.newest_ns is None or arrival.steady - self._first_unstamped >= _NAMED_AFTER:
            self.sequence_fault = NO_STAMP
            self._offsets.clear()

    def add_odd(self, fault: str, arrival: Arrival) -> None:
        """Take a message whose stamp does not continue the others; one now and then is no fault."""
        self.odd += 1
        self.sequence.heard = arrival
        if arrival.steady - self.last_good >= _NAMED_AFTER:
            self.sequence_fault = fault
            self._offsets.clear()

    def heard_within(self, seconds: float, now: float) -> bool:
        return self.sequence.heard is not None and now - self.sequence.heard.steady <= seconds

    def comparable(self, now: float) -> bool:
        """Return whether the sensor has recent stamps that advance."""
        return bool(self._offsets) and now - self._offsets[-1][0] <= WINDOW

    def forget_offsets(self) -> None:
        self._offsets.clear()

    def reset(self) -> None:
        self.sequence.reset()
        self._offsets.clear()
        self.sequence_fault = self.clock_fault = ""
        self._first_unstamped = None
