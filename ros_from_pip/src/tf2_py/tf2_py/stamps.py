# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Times and durations as integer nanoseconds, the internal unit of the buffer."""

from operator import index
from typing import Any, Final

from builtin_interfaces.msg import Time as TimeMessage

NANOSECONDS_PER_SECOND: Final = 1_000_000_000
LATEST: Final = 0
"""Requested time 0: the newest time with a known transform."""


def nanoseconds(time: Any, kind: str = "time") -> int:
    """Nanoseconds of a message (`sec`, `nanosec`) or of an rclpy Time or Duration (`nanoseconds`).

    Raises TypeError for anything else.
    """
    if hasattr(time, "sec") and hasattr(time, "nanosec"):
        return index(time.sec) * NANOSECONDS_PER_SECOND + index(time.nanosec)
    if hasattr(time, "nanoseconds"):
        return index(time.nanoseconds)
    raise TypeError(f"{kind} must have sec and nanosec, or nanoseconds, not {type(time).__name__}.")


def to_message(stamp: int) -> TimeMessage:
    """The builtin_interfaces/Time of a stamp in nanoseconds."""
    sec, nanosec = divmod(stamp, NANOSECONDS_PER_SECOND)
    return TimeMessage(sec=sec, nanosec=nanosec)


def display(stamp: int) -> str:
    """The stamp in seconds with six decimals, as tf2 prints it."""
    return f"{stamp / NANOSECONDS_PER_SECOND:.6f}"
