# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Conversion between builtin_interfaces/Time and integer nanoseconds."""

import copy
from typing import TypeVar

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

_SECOND = 1_000_000_000

Message = TypeVar("Message")


def stamp_to_ns(stamp: Time) -> int:
    nanoseconds: int = stamp.sec * _SECOND + stamp.nanosec
    return nanoseconds


def ns_to_stamp(nanoseconds: int) -> Time:
    sec, nanosec = divmod(nanoseconds, _SECOND)
    return Time(sec=sec, nanosec=nanosec)


def with_stamp(message: Message, nanoseconds: int) -> Message:
    """Return a message that shares all data with another one, but has its own header with another stamp."""
    stamped = copy.copy(message)
    stamped.header = Header(stamp=ns_to_stamp(nanoseconds), frame_id=message.header.frame_id)  # type: ignore[attr-defined]
    return stamped
