# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The playback waits for the node, and only for it."""

import threading
import time
from collections.abc import Callable

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")

from aqr_perception.demo.live.answer_gate import AnswerGate

PERIOD = 200_000_000
STAMPS = [PERIOD * (index + 1) for index in range(5)]
LATE_IMAGE = 10_000_000


class Node:
    """Answers."""

    def __init__(self) -> None:
        self.answered: list[int] = []

    def has_finished_near(self, stamp_ns: int, reach_ns: int) -> bool:
        return any(abs(found - stamp_ns) <= reach_ns for found in list(self.answered))

    def answer(self, stamp_ns: int, delay: float) -> None:
        threading.Timer(delay, self.answered.append, (stamp_ns,)).start()


def seconds_of(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def test_one_sweep_may_be_unanswered_while_the_next_is_sent() -> None:
    node = Node()
    gate = AnswerGate(node, STAMPS, lambda stamp_ns: False, longest_wait=5.0)
    assert seconds_of(lambda: gate.hold(STAMPS[0] + 1)) < 0.1, "the first sweep is on its way"
    node.answer(STAMPS[0], 0.2)
    assert seconds_of(lambda: gate.hold(STAMPS[1] + 1)) > 0.15, "the second one waits for the answer to the first"
    assert gate.seconds > 0.15


def test_a_frame_of_the_cameras_alone_is_no_answer_to_a_sweep_that_was_sent() -> None:
    node = Node()
    node.answered.append(STAMPS[0] - LATE_IMAGE)
    gate = AnswerGate(node, STAMPS, lambda stamp_ns: False, longest_wait=0.1)
    assert seconds_of(lambda: gate.hold(STAMPS[1] + 1)) > 0.08


def test_time_stands_still_after_a_lost_sweep_until_the_cameras_have_answered() -> None:
    node = Node()
    node.answered = [STAMPS[0]]
    gate = AnswerGate(node, STAMPS, lambda stamp_ns: stamp_ns > STAMPS[0], longest_wait=5.0)
    gate.hold(STAMPS[0] + 1)
    assert seconds_of(lambda: gate.hold(STAMPS[1])) < 0.1, "its images are sent"
    node.answer(STAMPS[1] - LATE_IMAGE, 0.3)
    assert seconds_of(lambda: gate.hold(STAMPS[1] + 1)) > 0.25


def test_a_missing_answer_ends_the_wait_at_last() -> None:
    gate = AnswerGate(Node(), STAMPS, lambda stamp_ns: False, longest_wait=0.1)
    assert 0.08 < seconds_of(lambda: gate.hold(STAMPS[1] + 1)) < 2.0
    assert seconds_of(lambda: gate.wait_for_last(0.05)) < 2.0
