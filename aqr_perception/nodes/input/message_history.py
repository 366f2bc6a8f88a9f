"""Recent messages of a sensor, by stamp."""

import sys
from collections.abc import Callable
from typing import Any

from message_filters import Cache, SimpleFilter, Subscriber
from rclpy.clock import ClockType
from rclpy.time import Time

from aqr_perception.nodes.input.message_error import MessageError
from aqr_perception.nodes.stamps import stamp_to_ns

LATE_NS = 200_000_000
"""Largest delay of a late message behind its sensor's newest one; after a larger step back, time jumped back."""


class MessageHistory(Cache):  # type: ignore[misc]  # ROS 2 is untyped here
    """A message_filters.Cache that is bounded by seconds, sorted by stamp, and cleared when time jumps back.

    The original is bounded by a count and keeps the order of arrival. Of messages with the same stamp, the last one is
    kept. Stamps are times of measurement in nanoseconds: the header's stamp minus `delay_ns`.

    Args:
        source: filter of the sensor's messages, which need a header.
        seconds: messages older than the newest one by more than this are dropped.
        delay_ns: delay of the headers' stamps after the measurement.
        on_jump: called when time jumps back, with the new message's stamp and the seconds of the jump. The history is
            empty at this call; the message is added after it.
    """

    def __init__(
        self, source: SimpleFilter, seconds: float, on_jump: Callable[[int, float], object], delay_ns: int = 0
    ) -> None:
        self.seconds = seconds
        self._on_jump = on_jump
        self._delay_ns = delay_ns
        self.cache_times: list[Time] = []
        self.cache_msgs: list[Any] = []
        super().__init__(source, cache_size=sys.maxsize)

    def __len__(self) -> int:
        return len(self.cache_msgs)

    def add(self, message: Any) -> None:
        """Insert a message by its stamp."""
        stamp_ns, newest_ns = self.stamp_ns(message), self.newest_ns
        if newest_ns is not None and newest_ns - stamp_ns > LATE_NS:
            self.clear()
            self._on_jump(stamp_ns, (newest_ns - stamp_ns) / 1e9)
        elif newest_ns is not None and newest_ns >= stamp_ns:
            self._keep(lambda other_ns: other_ns != stamp_ns)
        super().add(message)
        oldest_ns = max(map(self.stamp_ns, self.cache_msgs)) - round(self.seconds * 1e9)
        self._keep(lambda other_ns: other_ns >= oldest_ns)

    def clear(self) -> None:
        """Drop all messages."""
        self._keep(lambda other_ns: False)

    def stamp_ns(self, message: Any) -> int:
        """Return the time of measurement of one of the sensor's messages."""
        return stamp_to_ns(message.header.stamp) - self._delay_ns

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest message; None if there is none."""
        return self.stamp_ns(self.cache_msgs[-1]) if self.cache_msgs else None

    def has_later(self, stamp_ns: int) -> bool:
        """Return whether there is a message later than a stamp."""
        return self.newest_ns is not None and self.newest_ns > stamp_ns

    def nearest(self, stamp_ns: int) -> Any | None:
        """Return the message nearest to a stamp, the newer of two equally near ones; None if there is none."""
        time = self._header_time(stamp_ns)
        neighbours = (self.getElemAfterTime(time), self.getElemBeforeTime(time))
        found = [message for message in neighbours if message is not None]
        return min(found, key=lambda message: abs(self.stamp_ns(message) - stamp_ns), default=None)

    def until(self, stamp_ns: int) -> list[Any]:
        """Return the messages up to and including a stamp, newest first."""
        found: list[Any] = self.getInterval(self._header_time(-self._delay_ns), self._header_time(stamp_ns))
        return found[::-1]

    def _header_time(self, stamp_ns: int) -> Time:
        return Time(nanoseconds=max(stamp_ns + self._delay_ns, 0), clock_type=ClockType.ROS_TIME)

    def _keep(self, keeps: Callable[[int], bool]) -> None:
        """Keep the messages with stamps that fulfil a condition, and sort them."""
        entries = sorted(zip(self.cache_times, self.cache_msgs, strict=True), key=lambda entry: entry[0].nanoseconds)
        kept = [(time, message) for time, message in entries if keeps(self.stamp_ns(message))]
        self.cache_times = [time for time, _ in kept]
        self.cache_msgs = [message for _, message in kept]


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
        """Pass on a message; drop it if its stamp is negative, which rclpy has no time for."""
        stamp = messages[0].header.stamp
        try:
            if stamp.sec < 0:
                found = f"{stamp_to_ns(stamp) / 1e9:.3f} s"
                raise MessageError(self.topic, "negative stamp", found, "a time since 1970", "check the driver's clock")
            super().signalMessage(*messages)
        except Exception as error:
            self._on_error(error)
