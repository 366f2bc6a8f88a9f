# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Recent messages of a sensor, by stamp."""

import itertools
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Any

from message_filters import SimpleFilter, Subscriber

from aqr_perception.decoding.message_error import MessageError
from aqr_perception.nodes.stamps import stamp_to_ns

MOST_MESSAGES = 256
"""Bound for sensors whose stamps hardly advance; others are bounded by seconds."""

MOST_BYTES = 256 * 2**20
"""Bound for large messages at a high rate; ten raw 4K images, for example."""


class MessageHistory:
    """Messages of the last seconds, sorted by stamp. Of messages with the same stamp, the last one is kept.

    Stamps are times of measurement in nanoseconds: the header's stamp minus `delay_ns`.
    message_filters.Cache is not used: it is bounded by a count, keeps the order of arrival, and searches linearly.

    Args:
        seconds: messages older than the newest one by more than this are dropped.
        delay_ns: delay of the headers' stamps after the measurement.
    """

    def __init__(self, seconds: float, delay_ns: int = 0) -> None:
        self.seconds = seconds
        self._delay_ns = delay_ns
        self._stamps: list[int] = []
        self._messages: list[Any] = []
        self._sizes: list[int] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: Any) -> None:
        """Insert a message, which needs a header, by its stamp."""
        stamp_ns = self.stamp_ns(message)
        place = bisect_left(self._stamps, stamp_ns)
        if place < len(self._stamps) and self._stamps[place] == stamp_ns:
            self._bytes += _size(message) - self._sizes[place]
            self._messages[place], self._sizes[place] = message, _size(message)
            return
        self._stamps.insert(place, stamp_ns)
        self._messages.insert(place, message)
        self._sizes.insert(place, _size(message))
        self._bytes += self._sizes[place]
        oldest_ns = self._stamps[-1] - round(self.seconds * 1e9)
        surplus = max(bisect_left(self._stamps, oldest_ns), len(self._stamps) - MOST_MESSAGES)
        self._bytes -= sum(self._sizes[:surplus])
        while self._bytes > MOST_BYTES and surplus < len(self._sizes) - 1:
            self._bytes -= self._sizes[surplus]
            surplus += 1
        del self._stamps[:surplus], self._messages[:surplus], self._sizes[:surplus]

    def clear(self) -> None:
        """Drop all messages."""
        self._stamps.clear()
        self._messages.clear()
        self._sizes.clear()
        self._bytes = 0

    def stamp_ns(self, message: Any) -> int:
        """Return the time of measurement of one of the sensor's messages."""
        return stamp_to_ns(message.header.stamp) - self._delay_ns

    def header_ns(self, stamp_ns: int) -> int:
        """Return the header's stamp for a time of measurement."""
        return stamp_ns + self._delay_ns

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest message; None if there is none."""
        return self._stamps[-1] if self._stamps else None

    @property
    def period_ns(self) -> int | None:
        """Median time between two messages; None if there are fewer than two."""
        steps = [later - earlier for earlier, later in itertools.pairwise(self._stamps)]
        return statistics.median_low(steps) if steps else None

    def has_later(self, stamp_ns: int) -> bool:
        """Return whether there is a message later than a stamp."""
        return bool(self._stamps) and self._stamps[-1] > stamp_ns

    def __contains__(self, stamp_ns: int) -> bool:
        """Return whether there is a message with a stamp."""
        place = bisect_left(self._stamps, stamp_ns)
        return place < len(self._stamps) and self._stamps[place] == stamp_ns

    def nearest(self, stamp_ns: int) -> Any | None:
        """Return the message nearest to a stamp, the newer of two equally near ones; None if there is none."""
        place = bisect_left(self._stamps, stamp_ns)
        neighbours = [index for index in (place, place - 1) if 0 <= index < len(self._stamps)]
        nearest = min(neighbours, key=lambda index: abs(self._stamps[index] - stamp_ns), default=None)
        return None if nearest is None else self._messages[nearest]

    def until(self, stamp_ns: int) -> list[Any]:
        """Return the messages up to and including a stamp, newest first."""
        return self._messages[: bisect_right(self._stamps, stamp_ns)][::-1]

    @property
    def messages(self) -> list[Any]:
        """The messages, oldest first."""
        return list(self._messages)


def _size(message: Any) -> int:
    return len(getattr(message, "data", b""))


class GuardedFilter(SimpleFilter):  # type: ignore[misc]  # ROS 2 is untyped here
    """A filter from which no message ends its user: it drops messages that cannot be used.

    Args:
        topic: name of the topic, for errors.
        on_error: called with the error when a message is dropped.
    """

    def __init__(self, topic: str, on_error: Callable[[Exception], object]) -> None:
        super().__init__()
        self._topic, self._on_error = topic, on_error

    def signalMessage(self, *messages: Any) -> None:  # noqa: N802  # the original's name
        """Pass on a message; drop it if its stamp is negative, which rclpy has no time for."""
        try:
            _check_stamp(messages[0], self._topic)
            super().signalMessage(*messages)
        except Exception as error:
            self._on_error(error)


class GuardedSubscriber(Subscriber):  # type: ignore[misc]  # ROS 2 is untyped here
    """A message_filters.Subscriber from which no message ends the node: rclpy ends with an error in a callback.

    Args:
        arguments: of Subscriber: node, type, topic and keyword arguments.
        on_error: called with the error when a message is dropped.
    """

    def __init__(self, *arguments: Any, on_error: Callable[[Exception], object], **keywords: Any) -> None:
        self._on_error = on_error
        super().__init__(*arguments, **keywords)

    def signalMessage(self, *messages: Any) -> None:  # noqa: N802  # the original's name
        """Pass on a message; drop it as `GuardedFilter` does."""
        try:
            _check_stamp(messages[0], self.topic)
            super().signalMessage(*messages)
        except Exception as error:
            self._on_error(error)


def _check_stamp(message: Any, topic: str) -> None:
    stamp = message.header.stamp
    if stamp.sec < 0:
        found = f"{stamp_to_ns(stamp) / 1e9:.3f} s"
        raise MessageError(topic, "negative stamp", found, "a time since 1970", "check the driver's clock")
