# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter that keeps the last messages."""

from typing import Any

from rclpy.time import Time

from message_filters.simple_filter import SimpleFilter


class Cache(SimpleFilter):
    """Filter that passes on every message of `f` and keeps the last `cache_size` messages, in order of arrival.

    Attributes:
        cache_msgs, cache_times: the messages and their headers' stamps.
    """

    def __init__(self, f: SimpleFilter, cache_size: int = 1) -> None:
        super().__init__()
        self.connectInput(f)
        self.cache_size = cache_size
        self.cache_msgs: list[Any] = []
        self.cache_times: list[Time] = []

    def connectInput(self, f: SimpleFilter) -> None:
        """Connect the filter with `f`, the source of messages."""
        self.incoming_connection = f.registerCallback(self.add)

    def add(self, msg: Any) -> None:
        """Keep `msg`, drop the first message if there are too many, and pass `msg` on."""
        self.cache_times.append(Time.from_msg(msg.header.stamp))
        self.cache_msgs.append(msg)
        if len(self.cache_msgs) > self.cache_size:
            del self.cache_msgs[0]
            del self.cache_times[0]
        self.signalMessage(msg)

    def getInterval(self, from_stamp: Time, to_stamp: Time) -> list[Any]:
        """Return the messages from `from_stamp` to `to_stamp`, both included."""
        assert from_stamp <= to_stamp, f"the interval ends ({to_stamp}) before it starts ({from_stamp})"
        return [msg for msg, stamp in self._stamped() if from_stamp <= stamp <= to_stamp]

    def getElemAfterTime(self, stamp: Time) -> Any | None:
        """Return the first message, by arrival, that is not older than `stamp`, or None."""
        return next((msg for msg, time in self._stamped() if time >= stamp), None)

    def getElemBeforeTime(self, stamp: Time) -> Any | None:
        """Return the last message, by arrival, that is not newer than `stamp`, or None."""
        return next((msg for msg, time in reversed(self._stamped()) if time <= stamp), None)

    def getLast(self) -> Any | None:
        """Return the first message that is not older than the last one, or None."""
        return self.getElemAfterTime(self.cache_times[-1]) if self.cache_times else None

    def _stamped(self) -> list[tuple[Any, Time]]:
        return list(zip(self.cache_msgs, self.cache_times, strict=True))
