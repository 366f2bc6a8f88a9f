# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Continuity of one publisher's stamps."""

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from aqr_perception.nodes.clocks.stamp_sequence import (
    CONFIRMATIONS,
    LATE_NS,
    TOLERANCE_NS,
    Arrival,
    StampSequence,
    Step,
)

MS = 1_000_000
START = 1_500_000_000_000 * MS


class Publisher:
    """A sequence fed with stamps in milliseconds after `START`."""

    def __init__(self) -> None:
        self.sequence: StampSequence[int] = StampSequence()

    def send(self, stamp: int, at: int) -> Step:
        return self.sequence.add(START + stamp * MS, Arrival(at / 1e3, at * MS), stamp)


def test_stamps_that_advance_repeat_or_are_a_little_late_continue() -> None:
    publisher = Publisher()
    assert publisher.send(0, 0) is Step.NEXT
    assert publisher.send(100, 100) is Step.NEXT
    assert publisher.send(100 - LATE_NS // MS, 110) is Step.LATE
    assert publisher.send(100, 120) is Step.REPEATED
    assert publisher.send(5000, 5000) is Step.NEXT, "a pause"
    assert publisher.sequence.newest_ns == START + 5000 * MS


def test_a_pause_of_a_fast_clock_is_no_leap() -> None:
    sequence: StampSequence[str] = StampSequence()
    sequence.add(START, Arrival(0.0, START), "")
    assert sequence.add(START + 10_000 * MS, Arrival(1.0, START + 10_000 * MS), "") is Step.NEXT


@given(st.integers(-3_600_000, 3_600_000).filter(lambda ahead: not -LATE_NS <= (ahead + 1000) * MS <= TOLERANCE_NS * 9))
@hypothesis_settings(max_examples=60, deadline=None)
def test_a_lasting_leap_is_followed_after_some_messages_and_a_short_one_is_not(ahead: int) -> None:
    publisher = Publisher()
    for now in range(0, 1000, 100):
        publisher.send(now, now)
    for now in range(1000, 1000 + 100 * (CONFIRMATIONS - 1), 100):
        assert publisher.send(now + ahead, now) is Step.LEAP
    assert publisher.send(1000, 1300) is Step.NEXT, "the earlier time goes on"
    for now in range(1400, 1400 + 100 * (CONFIRMATIONS - 1), 100):
        assert publisher.send(now + ahead, now) is Step.LEAP
    last = 1400 + 100 * (CONFIRMATIONS - 1)
    assert publisher.send(last + ahead, last) is Step.RESTART
    assert [held.message - ahead for held in publisher.sequence.take_held()] == list(range(1400, last + 1, 100))
    assert publisher.send(last + ahead + 100, last + 100) is Step.NEXT


def test_a_repeated_odd_stamp_confirms_nothing() -> None:
    publisher = Publisher()
    publisher.send(0, 0)
    assert {publisher.send(-5000, now) for now in range(100, 1000, 100)} == {Step.LEAP}
    assert len(publisher.sequence.held) == 1


def test_stamps_without_any_order_are_leaps() -> None:
    publisher = Publisher()
    publisher.send(0, 0)
    wild = [90_000, -40_000, 700_000, -9_000, 55_000, -88_000]
    assert [publisher.send(stamp, 100 + index) for index, stamp in enumerate(wild)] == [Step.LEAP] * len(wild)
