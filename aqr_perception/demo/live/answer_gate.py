# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pauses of a playback until the node has answered, so that no sweep stays without detections."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from aqr_perception.demo.truth import SAME_SWEEP_NS

_POLL = 0.005
_LONGEST_WAIT = 10.0
"""Seconds; a sweep without an answer by then is reported as unanswered."""


class Outputs(Protocol):
    """What a gate asks the recorder."""

    def has_finished_near(self, stamp_ns: int, reach_ns: int) -> bool:
        """Return whether the node has finished a frame near a stamp."""


class AnswerGate:
    """Decision when a playback goes on, from the answers that have arrived.

    At most two sweeps are without an answer: one that the node works on, and the newest one. After a sweep that the
    LiDAR does not send, the bag's time stands still until the node has noticed, and answered with the cameras alone.

    Args:
        outputs: the recorder.
        stamps: stamps of all sweeps of the drive, in order.
        is_lost: whether the sweep of a stamp is not sent.
        longest_wait: seconds to wait for one answer.

    Attributes:
        seconds: time that the playback waited so far.
    """

    def __init__(
        self,
        outputs: Outputs,
        stamps: Sequence[int],
        is_lost: Callable[[int], bool],
        longest_wait: float = _LONGEST_WAIT,
    ) -> None:
        self._outputs, self._stamps, self._is_lost, self._longest = outputs, list(stamps), is_lost, longest_wait
        self._passed = 0
        self._answered = 0
        self.seconds = 0.0

    def hold(self, stamp_ns: int) -> None:
        """Return when the message with this recording time may be published."""
        while self._passed < len(self._stamps) and self._stamps[self._passed] < stamp_ns:
            started = time.monotonic()
            newest = self._stamps[self._passed]
            self._wait_for_answers(self._passed + self._is_lost(newest), self._longest)
            self.seconds += time.monotonic() - started
            self._passed += 1

    def wait_for_last(self, seconds: float) -> None:
        """Wait until all sweeps have their answers, but for each missing one no longer than some seconds."""
        self._wait_for_answers(len(self._stamps), seconds)

    def _wait_for_answers(self, count: int, seconds: float) -> None:
        """Wait until the first `count` sweeps have their answers."""
        while self._answered < count:
            deadline = time.monotonic() + seconds
            stamp_ns = self._stamps[self._answered]
            # A frame of the cameras alone, of the time before a sweep arrived, is no answer to that sweep.
            reach_ns = SAME_SWEEP_NS if self._is_lost(stamp_ns) else 0
            while not self._outputs.has_finished_near(stamp_ns, reach_ns) and time.monotonic() < deadline:
                time.sleep(_POLL)
            self._answered += 1
