"""builtin_interfaces/Time <-> integer nanoseconds."""

from builtin_interfaces.msg import Time

_SECOND = 1_000_000_000


def stamp_to_ns(stamp: Time) -> int:
    return stamp.sec * _SECOND + stamp.nanosec


def ns_to_stamp(nanoseconds: int) -> Time:
    sec, nanosec = divmod(nanoseconds, _SECOND)
    return Time(sec=sec, nanosec=nanosec)
