"""The time of a message."""

from typing import Any

from rclpy.clock import ROSClock
from rclpy.logging import LoggingSeverity, get_logger
from rclpy.time import Time


def stamp_or_now(msg: Any, allow_headerless: bool, logger_name: str) -> Time | None:
    """Return the header's stamp, or the ROS time of now for a message without one.

    Where `allow_headerless` is false, such a message is reported on `logger_name` instead, and None returned.
    """
    if hasattr(msg, "header") and hasattr(msg.header, "stamp"):
        stamp = msg.header.stamp
        return stamp if hasattr(stamp, "nanoseconds") else Time.from_msg(stamp)
    if allow_headerless:
        return ROSClock().now()
    logger = get_logger(logger_name)
    logger.set_level(LoggingSeverity.INFO)
    logger.warning(
        f"{type(msg).__name__} has no header.stamp and is dropped: "
        "pass allow_headerless=True to use its time of arrival instead"
    )
    return None
