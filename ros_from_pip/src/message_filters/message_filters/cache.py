"""A filter that remembers the last messages."""

from typing import Any

from rclpy.time import Time

from message_filters.simple_filter import SimpleFilter
from message_filters.stamps import stamp_or_now


class Cache(SimpleFilter):
    """Passes every message of `f` on and keeps the last `cache_size` of them, in the order of arrival.

    Messages without a stamp are dropped, or with `allow_headerless` kept under their time of arrival.
    """

    def __init__(self, f: SimpleFilter, cache_size: int = 1, allow_headerless: bool = False) -> None:
        super().__init__()
        self.connectInput(f)
        self.cache_size = cache_size
        self.cache_msgs: list[Any] = []
        self.cache_times: list[Time] = []
        self.allow_headerless = allow_headerless

    def connectInput(self, f: SimpleFilter) -> None:
        """Take messages from `f` (too)."""
        self.incoming_connection = f.registerCallback(self.add)

    def add(self, msg: Any) -> None:
        """Keep `msg`, forget the first one where there are too many, and give `msg` out."""
        stamp = stamp_or_now(msg, self.allow_headerless, "message_filters_cache")
        if stamp is None:
            return
        self.cache_times.append(stamp)
        self.cache_msgs.append(msg)
        if len(self.cache_msgs) > self.cache_size:
            del self.cache_msgs[0]
            del self.cache_times[0]
        self.signalMessage(msg)

    def getInterval(self, from_stamp: Time, to_stamp: Time) -> list[Any]:
        """Return the messages of `from_stamp` to `to_stamp`, both included. AssertionError where these are swapped."""
        assert from_stamp <= to_stamp, f"the interval ends ({to_stamp}) before it starts ({from_stamp})"
        return [msg for msg, stamp in self._stamped() if from_stamp <= stamp <= to_stamp]

    def getElemAfterTime(self, stamp: Time) -> Any | None:
        """Return the first message to have come that is not older than `stamp`, or None."""
        return next((msg for msg, time in self._stamped() if time >= stamp), None)

    def getElemBeforeTime(self, stamp: Time) -> Any | None:
        """Return the last message to have come that is not newer than `stamp`, or None."""
        return next((msg for msg, time in reversed(self._stamped()) if time <= stamp), None)

    def getLastestTime(self) -> Time | None:
        """Return the stamp of the last message to have come, or None."""
        return self.cache_times[-1] if self.cache_times else None

    def getOldestTime(self) -> Time | None:
        """Return the stamp of the first message that is still kept, or None."""
        return self.cache_times[0] if self.cache_times else None

    def getLast(self) -> Any | None:
        """Return the first message that is not older than the last one's stamp, or None."""
        latest = self.getLastestTime()
        return None if latest is None else self.getElemAfterTime(latest)

    def _stamped(self) -> list[tuple[Any, Time]]:
        # Not strict: another thread may be between the two insertions of `add`.
        return list(zip(self.cache_msgs, self.cache_times, strict=False))
