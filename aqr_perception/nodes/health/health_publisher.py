# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Publication of /diagnostics from a thread of its own."""

import re
import threading
import time
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from aqr_perception.nodes.worker import start_thread

_CHECK_PERIOD = 0.1
_PERIOD = 0.5
_NUMBER = re.compile(r"\d+(\.\d+)?")


class HealthPublisher:
    """Publisher of /diagnostics: at once, then twice a second and as soon as a state changes or a listener is new.

    It has a thread of its own, so that it also reports while a model loads or a callback is stuck.

    Args:
        report: returns the current state at a time in seconds of the monotonic clock; called from the thread, and for
            the first message from the constructor.
    """

    def __init__(self, node: Node, report: Callable[[float], DiagnosticArray]) -> None:
        self._node, self._report = node, report
        self._publisher: Any = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._stop = threading.Event()
        self._last_time = -_PERIOD
        self._last_state: tuple[list[tuple[str, bytes, str]], int] = ([], 0)
        self._publish_if_due(time.monotonic())
        self._thread = start_thread(self._run, "aqr_health")

    def close(self) -> None:
        """End the thread and destroy the publisher."""
        self._stop.set()
        self._thread.join(_PERIOD)
        self._node.destroy_publisher(self._publisher)

    def _run(self) -> None:
        while self._node.context.ok() and not self._stop.is_set():
            try:
                self._publish_if_due(time.monotonic())
            except Exception as error:  # also when the context is shut down meanwhile
                if self._node.context.ok() and not self._stop.is_set():
                    self._node.get_logger().error(
                        f"/diagnostics is incomplete: {type(error).__name__}: {error}", throttle_duration_sec=5.0
                    )
            self._stop.wait(_CHECK_PERIOD)

    def _publish_if_due(self, now: float) -> None:
        message = self._report(now)
        said = [(status.name, status.level, _NUMBER.sub("#", status.message)) for status in message.status]
        state = said, self._publisher.get_subscription_count()
        if now - self._last_time >= _PERIOD - _CHECK_PERIOD / 2 or state != self._last_state:
            self._last_time, self._last_state = now, state
            self._publisher.publish(message)
