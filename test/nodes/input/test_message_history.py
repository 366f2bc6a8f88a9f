# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A sensor's history: bounded by seconds and sorted by stamp."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from message_filters import Cache

from aqr_perception.nodes.input import message_history
from aqr_perception.nodes.input.message_history import MOST_MESSAGES, GuardedSubscriber, MessageHistory
from aqr_perception.nodes.stamps import ns_to_stamp

MS = 1_000_000
START = 1_500_000_000_000 * MS


class Sensor:
    """A history and its messages; times in milliseconds."""

    def __init__(self, seconds: float = 1.0, delay: int = 0) -> None:
        self.history = MessageHistory(seconds, delay * MS)

    def send(self, stamp: int, name: str = "") -> None:
        header = SimpleNamespace(stamp=ns_to_stamp(START + stamp * MS))
        self.history.add(SimpleNamespace(header=header, milliseconds=stamp, name=name))

    @property
    def stamps(self) -> list[int]:
        return [message.milliseconds for message in self.history.messages]

    def nearest(self, stamp: int) -> Any:
        return self.history.nearest(START + stamp * MS)


arrivals = st.lists(st.integers(0, 3000), min_size=1, max_size=40)


@given(arrivals, st.integers(1, 2000), st.integers(-500, 3500))
@settings(max_examples=100, deadline=None)
def test_a_history_equals_a_sorted_list_of_recent_stamps(stamps: list[int], window: int, at: int) -> None:
    sensor, expected = Sensor(window / 1000), list[int]()
    for stamp in stamps:
        expected = sorted({*expected, stamp})
        expected = [other for other in expected if other >= expected[-1] - window]
        sensor.send(stamp)
        assert sensor.stamps == expected
    assert sensor.nearest(at).milliseconds == min(reversed(expected), key=lambda other: abs(other - at))
    until = [message.milliseconds for message in sensor.history.until(START + at * MS)]
    assert until == [other for other in reversed(expected) if other <= at]
    assert sensor.history.newest_ns == START + expected[-1] * MS
    assert sensor.history.has_later(START + at * MS) == (expected[-1] > at)
    assert (START + at * MS in sensor.history) == (at in expected)


def test_the_bound_is_a_time_and_not_a_count() -> None:
    sensor = Sensor(seconds=0.5)
    for stamp in range(0, 2001, 2):
        sensor.send(stamp)
    assert sensor.stamps == list(range(1500, 2001, 2))
    sensor.history.seconds = 0.1
    sensor.send(2002)
    assert sensor.stamps[0] == 1902


def test_the_newest_message_stays_at_any_age() -> None:
    sensor = Sensor(seconds=0.1)
    sensor.send(0)
    sensor.send(5000)
    assert sensor.stamps == [5000]


def test_a_message_replaces_one_with_the_same_stamp() -> None:
    sensor = Sensor()
    for name in ("first", "second"):
        sensor.send(10, name)
    assert sensor.stamps == [10] and sensor.nearest(10).name == "second"


def test_a_late_message_is_sorted_in() -> None:
    sensor = Sensor()
    for stamp in (0, 250, 300, 100):
        sensor.send(stamp)
    assert sensor.stamps == [0, 100, 250, 300]
    sensor.history.clear()
    assert len(sensor.history) == 0


def test_stamps_that_hardly_advance_do_not_fill_the_memory() -> None:
    sensor = Sensor(seconds=10.0)
    for stamp in range(2 * MOST_MESSAGES):
        sensor.send(stamp)
    assert sensor.stamps == list(range(MOST_MESSAGES, 2 * MOST_MESSAGES))


def test_large_messages_are_bounded_in_bytes_and_the_newest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_history, "MOST_BYTES", 1000)
    history = MessageHistory(10.0)
    for index, size in enumerate((300, 300, 300, 300, 5000)):
        header = SimpleNamespace(stamp=ns_to_stamp(START + index * MS))
        history.add(SimpleNamespace(header=header, data=bytes(size)))
        assert len(history) == (1, 2, 3, 3, 1)[index]
        assert history.newest_ns == START + index * MS


def test_adding_a_message_costs_the_same_in_a_full_history() -> None:
    def seconds(history: MessageHistory) -> float:
        messages = [SimpleNamespace(header=SimpleNamespace(stamp=ns_to_stamp(START + k * MS))) for k in range(2000)]
        start = time.thread_time()
        for message in messages:
            history.add(message)
        return time.thread_time() - start

    short, full = MessageHistory(0.002), MessageHistory(10.0)
    assert min(seconds(full) for _ in range(3)) < 5 * min(seconds(short) for _ in range(3)), "no sorting, no rebuilding"


def test_the_delay_is_subtracted_from_every_stamp() -> None:
    sensor = Sensor(delay=150)
    for stamp in (200, 300):
        sensor.send(stamp)
    assert sensor.history.newest_ns == START + 150 * MS
    assert sensor.nearest(60).milliseconds == 200
    assert [message.milliseconds for message in sensor.history.until(START + 149 * MS)] == [200]


def test_an_empty_history_has_nothing() -> None:
    sensor = Sensor()
    assert (sensor.history.newest_ns, sensor.nearest(0), sensor.history.until(START), len(sensor.history)) == (
        None,
        None,
        [],
        0,
    )
    assert not sensor.history.has_later(0)


def test_stamps_at_the_start_of_simulated_time_are_found() -> None:
    sensor = Sensor(delay=500)
    sensor.history.add(SimpleNamespace(header=SimpleNamespace(stamp=ns_to_stamp(100 * MS))))
    assert sensor.history.newest_ns == -400 * MS
    assert sensor.history.nearest(-1000 * MS) is not None
    assert len(sensor.history.until(0)) == 1


class FakeNode:
    """A node that hands over its subscription's callback."""

    def create_subscription(self, kind: type, topic: str, callback: Any, **qos: Any) -> None:
        self.callback = callback


def test_a_message_with_a_negative_stamp_or_a_failing_callback_does_not_end_the_node() -> None:
    node, errors, arrived = FakeNode(), [], []
    source = GuardedSubscriber(node, object, "/points", on_error=errors.append)
    Cache(source, cache_size=1)
    source.registerCallback(lambda message: arrived.append(1 // message.divisor))

    def send(sec: int, divisor: int) -> None:
        stamp = ns_to_stamp(sec * 1_000_000_000)
        node.callback(SimpleNamespace(header=SimpleNamespace(stamp=stamp), divisor=divisor))

    for sec, divisor in ((-5, 1), (5, 0), (5, 1)):
        send(sec, divisor)
    assert arrived == [1]
    assert str(errors[0]).startswith("/points: negative stamp: found -5.000 s") and len(errors) == 2
