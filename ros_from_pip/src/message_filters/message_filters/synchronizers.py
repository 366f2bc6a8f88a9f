"""Filters that give out one message of each input together: those of the same, or nearly the same, time."""

import itertools
import threading
from collections.abc import Sequence
from typing import Any

from rclpy.duration import Duration
from rclpy.time import Time

from message_filters.simple_filter import SimpleFilter
from message_filters.stamps import stamp_or_now

# The messages of one input that wait for partners, by stamp in nanoseconds.
Queue = dict[int, Any]


class TimeSynchronizer(SimpleFilter):
    """Calls back with one message of each filter in `fs`, in the order of `fs`, once all have the same stamp.

    Of each input the `queue_size` newest waiting messages are kept.
    """

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int) -> None:
        super().__init__()
        self.connectInput(fs)
        self.queue_size = queue_size
        self.lock = threading.Lock()

    def connectInput(self, fs: Sequence[SimpleFilter]) -> None:
        """Take messages from the filters `fs`, with empty queues."""
        self.queues: list[Queue] = [{} for _ in fs]
        self.input_connections = [
            f.registerCallback(self.add, queue, index)
            for index, (f, queue) in enumerate(zip(fs, self.queues, strict=True))
        ]

    def add(self, msg: Any, my_queue: Queue, my_queue_index: int | None = None) -> None:
        """Take `msg` into `my_queue` and give out all sets that are complete, the oldest first."""
        with self.lock:
            self._keep(msg, Time.from_msg(msg.header.stamp).nanoseconds, my_queue)
            for stamp in sorted(set.intersection(*map(set, self.queues))):
                self._give_out([stamp] * len(self.queues))

    def _keep(self, msg: Any, stamp: int, queue: Queue) -> None:
        queue[stamp] = msg
        while len(queue) > self.queue_size:
            del queue[min(queue)]

    def _give_out(self, stamps: Sequence[int]) -> None:
        """Give out the messages with these stamps, one of each queue, and forget them."""
        self.signalMessage(*(queue[stamp] for queue, stamp in zip(self.queues, stamps, strict=True)))
        for queue, stamp in zip(self.queues, stamps, strict=True):
            del queue[stamp]


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """A TimeSynchronizer for stamps that are less than `slop` seconds apart.

    Each new message is matched with waiting ones, nearest first; each message is given out once at most. With
    `allow_headerless`, messages without a stamp get their time of arrival; otherwise they are dropped with a warning.
    """

    def __init__(
        self, fs: Sequence[SimpleFilter], queue_size: int, slop: float, allow_headerless: bool = False
    ) -> None:
        super().__init__(fs, queue_size)
        self.slop = Duration(seconds=slop)
        self.allow_headerless = allow_headerless

    def add(self, msg: Any, my_queue: Queue, my_queue_index: int | None = None) -> None:
        """Take `msg` into `my_queue` and give out the best set that it completes, if any."""
        stamp = stamp_or_now(msg, self.allow_headerless, "message_filters_approx")
        if stamp is None:
            return
        with self.lock:
            self._keep(msg, stamp.nanoseconds, my_queue)
            for stamps in itertools.product(*self._candidates(stamp.nanoseconds, my_queue_index)):
                spread = max(stamps) - min(stamps)
                waiting = all(time in queue for queue, time in zip(self.queues, stamps, strict=True))
                if spread < self.slop.nanoseconds and waiting:
                    self._give_out(stamps)
                    break

    def _candidates(self, stamp: int, my_queue_index: int | None) -> list[list[int]]:
        """Return, by queue, the stamps within the slop of `stamp`, nearest first; its own queue has itself alone."""

        def distance(other: int) -> int:
            return abs(other - stamp)

        return [
            [stamp]
            if index == my_queue_index
            else sorted((time for time in queue if distance(time) <= self.slop.nanoseconds), key=distance)
            for index, queue in enumerate(self.queues)
        ]
