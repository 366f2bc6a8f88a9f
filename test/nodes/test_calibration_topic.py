# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""When the node asks for a latched calibration, and when it does not."""

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")

from message_filters import SimpleFilter

from aqr_perception.nodes.calibration_topic import CalibrationTopic
from aqr_perception.nodes.health.topic_links import LinkState

ONE, OTHER = frozenset({b"1"}), frozenset({b"2"})


class Topic:
    """A topic whose subscriptions are plain filters."""

    def __init__(self) -> None:
        self.live, self.latched = SimpleFilter(), SimpleFilter()
        self.opened, self.closed = 0, 0
        self.heard: list[Any] = []
        self.calibration = CalibrationTopic(self.live, self._open)
        self.calibration.registerCallback(self.heard.append)

    def _open(self) -> tuple[SimpleFilter, Any]:
        self.opened += 1
        self.latched = SimpleFilter()
        return self.latched, self._close

    def _close(self) -> None:
        self.closed += 1

    @property
    def is_open(self) -> bool:
        return self.opened > self.closed


def test_without_latched_publishers_nothing_is_asked_for() -> None:
    topic = Topic()
    for now in range(5):
        topic.calibration.follow(LinkState(volatile=True), now)
    topic.live.signalMessage("info")
    assert topic.opened == 0 and topic.heard == ["info"]


def test_a_new_latched_publisher_is_asked_until_its_message_is_there() -> None:
    topic = Topic()
    topic.calibration.follow(LinkState(latched=ONE), 0.0)
    assert topic.is_open, "at once"
    topic.calibration.follow(LinkState(latched=ONE), 5.0)
    assert topic.is_open, "as long as nothing has come"
    topic.latched.signalMessage("info")
    topic.calibration.follow(LinkState(latched=ONE), 5.1)
    topic.calibration.follow(LinkState(latched=ONE), 6.2)
    assert topic.heard == ["info"] and not topic.is_open
    topic.calibration.follow(LinkState(latched=ONE), 9.0)
    assert topic.opened == 1, "its later messages come to the other subscription"
    topic.calibration.follow(LinkState(latched=OTHER), 9.5)
    assert topic.is_open, "another publisher has another calibration"
    topic.calibration.follow(LinkState(), 10.0)
    assert not topic.is_open


def test_a_volatile_publisher_that_sends_is_never_bothered() -> None:
    topic = Topic()
    mixed = LinkState(latched=ONE, volatile=True)
    for step in range(50):
        topic.live.signalMessage(step)
        topic.calibration.follow(mixed, 0.1 * step)
    assert topic.opened == 0 and len(topic.heard) == 50


def test_a_volatile_publisher_that_is_silent_does_not_hide_a_latched_one() -> None:
    topic = Topic()
    mixed = LinkState(latched=ONE, volatile=True)
    topic.calibration.follow(mixed, 0.0)
    assert not topic.is_open
    topic.calibration.follow(mixed, 1.1)
    assert topic.is_open
    topic.latched.signalMessage(SimpleNamespace())
    topic.calibration.follow(mixed, 2.0)
    topic.calibration.follow(mixed, 2.3)
    assert not topic.is_open and len(topic.heard) == 1


def test_a_volatile_publisher_that_joins_and_sends_ends_the_request() -> None:
    topic = Topic()
    topic.calibration.follow(LinkState(latched=ONE), 0.0)
    topic.live.signalMessage("info")
    topic.calibration.follow(LinkState(latched=ONE, volatile=True), 0.5)
    assert not topic.is_open
    topic.calibration.follow(LinkState(latched=ONE, volatile=True), 9.0)
    assert topic.opened == 1
