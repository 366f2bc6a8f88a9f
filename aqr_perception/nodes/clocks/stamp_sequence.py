# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Continuity of one publisher's stamps: which stamps continue the earlier ones, and which leap."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, NamedTuple, TypeVar

LATE_NS = 200_000_000
"""Largest delay of a late sensor message behind the newest one; a larger step back is a leap."""

TOLERANCE_NS = 1_000_000_000
"""Largest step forward beyond the time that passed; a larger one is a leap."""

CONFIRMATIONS = 3
"""Leaps in a row, continuing each other, after which a publisher has a new time."""

Message = TypeVar("Message")


class Arrival(NamedTuple):
    """Moment of a message's arrival.

    Attributes:
        steady: a monotonic clock, in seconds.
        clock_ns: the node's clock (the time of /clock with `use_sim_time`) in nanoseconds.
    """

    steady: float
    clock_ns: int

    def since_ns(self, earlier: "Arrival") -> int:
        """Return the time since an earlier moment by the clock that went further: simulated time may be fast."""
        return max(round((self.steady - earlier.steady) * 1e9), self.clock_ns - earlier.clock_ns)


class Step(Enum):
    """Relation of a stamp to the earlier ones of its publisher."""

    NEXT = auto()
    """The newest so far."""
    LATE = auto()
    """Older than the newest one by at most `LATE_NS`."""
    REPEATED = auto()
    """Equal to the newest one."""
    LEAP = auto()
    """Far from where the earlier stamps lead. The message is held."""
    RESTART = auto()
    """The last of `CONFIRMATIONS` leaps that continue each other. The sequence now continues from them."""


@dataclass(frozen=True)
class HeldMessage(Generic[Message]):
    """A message whose stamp leaps, until others confirm its time."""

    stamp_ns: int
    arrival: Arrival
    message: Message


class StampSequence(Generic[Message]):
    """Stamps of one publisher in their order of arrival.

    A single odd stamp changes nothing. A lasting leap is accepted after `CONFIRMATIONS` messages.

    Args:
        late_ns: largest delay of a late message behind the newest one.

    Attributes:
        newest_ns: the newest stamp that continues the sequence; None before the first one.
        heard: arrival of the last message with any stamp; None before the first one.
        held: messages whose stamps leap, and continue each other.
        repeats: number of messages in a row with the newest stamp again.
    """

    def __init__(self, late_ns: int = LATE_NS) -> None:
        self._late_ns = late_ns
        self.newest_ns: int | None = None
        self.heard: Arrival | None = None
        self.held: list[HeldMessage[Message]] = []
        self.repeats = 0
        self._advanced: Arrival | None = None

    def add(self, stamp_ns: int, arrival: Arrival, message: Message) -> Step:
        """Add a stamp and return its relation to the earlier ones."""
        self.heard = arrival
        if self.newest_ns is None or self._advanced is None:
            return self._advance(stamp_ns, arrival)
        if stamp_ns == self.newest_ns:
            self.repeats += 1
            return Step.REPEATED
        if self._continues(self.newest_ns, self._advanced, stamp_ns, arrival):
            return self._advance(stamp_ns, arrival)
        return self._hold(HeldMessage(stamp_ns, arrival, message))

    def take_held(self) -> list[HeldMessage[Message]]:
        """Let the sequence continue from the held messages, and return them in their order of arrival."""
        held, self.held = self.held, []
        if held:
            newest = max(held, key=lambda one: one.stamp_ns)
            self.newest_ns, self._advanced, self.repeats = newest.stamp_ns, newest.arrival, 0
        return held

    def reset(self) -> None:
        """Forget all stamps."""
        self.newest_ns = self._advanced = None
        self.held, self.repeats = [], 0

    def seconds_without_advance(self, arrival: Arrival) -> float:
        """Return the seconds since the newest stamp arrived."""
        return 0.0 if self._advanced is None else arrival.steady - self._advanced.steady

    def _advance(self, stamp_ns: int, arrival: Arrival) -> Step:
        self.held = []
        if self.newest_ns is not None and stamp_ns < self.newest_ns:
            return Step.LATE
        self.newest_ns, self._advanced, self.repeats = stamp_ns, arrival, 0
        return Step.NEXT

    def _hold(self, leap: HeldMessage[Message]) -> Step:
        last = self.held[-1] if self.held else None
        if last is not None and leap.stamp_ns == last.stamp_ns:
            return Step.LEAP  # a repeated odd stamp confirms nothing
        if last is not None and not self._continues(last.stamp_ns, last.arrival, leap.stamp_ns, leap.arrival):
            self.held = []
        self.held.append(leap)
        return Step.RESTART if len(self.held) >= CONFIRMATIONS else Step.LEAP

    def _continues(self, newest_ns: int, advanced: Arrival, stamp_ns: int, arrival: Arrival) -> bool:
        """Return whether a stamp is where earlier ones lead: a little late, or later by the time that passed."""
        return -self._late_ns <= stamp_ns - newest_ns <= arrival.since_ns(advanced) + TOLERANCE_NS
