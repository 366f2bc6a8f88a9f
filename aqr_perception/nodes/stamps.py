"""Conversion between builtin_interfaces/Time and integer nanoseconds."""

from builtin_interfaces.msg import Time

_SECOND = 1_000_000_000


def stamp_to_ns(stamp: Time) -> int:
    nanoseconds: int = stamp.sec * _SECOND + stamp.nanosec
    return nanoseconds


def ns_to_stamp(nanoseconds: int) -> Time:
    sec, nanosec = divmod(nanoseconds, _SECOND)
    return Time(sec=sec, nanosec=nanosec)
