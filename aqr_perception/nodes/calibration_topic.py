# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Subscription to a camera's calibration, published all the time or latched."""

import math
from collections.abc import Callable
from typing import Any

from message_filters import SimpleFilter

from aqr_perception.nodes.health.topic_links import LinkState

_KEPT_OPEN = 1.0
"""Seconds for which a latched subscription stays after its first message; there may be several publishers."""

_PATIENCE = 1.0
"""Seconds in which a volatile publisher beside a latched one has to send."""


class CalibrationTopic(SimpleFilter):  # type: ignore[misc]  # ROS 2 is untyped here
    """Filter that passes on the CameraInfo of a topic, of volatile and of transient-local publishers.

    One subscription is volatile, and receives what any publisher sends from now on. What a transient-local publisher
    sent before comes only to a transient-local subscription. Volatile publishers cannot serve that, and log a warning
    about its incompatible QoS. So it exists only where a transient-local publisher is new, and no volatile one is there
    that sends; it ends when it has received a message. Use it from one thread.

    Args:
        live: the filter of the volatile subscription.
        open_latched: creates the transient-local subscription; returns its filter, and a function that destroys it.
    """

    def __init__(
        self, live: SimpleFilter, open_latched: Callable[[], tuple[SimpleFilter, Callable[[], object]]]
    ) -> None:
        super().__init__()
        self._open_latched = open_latched
        self._close: Callable[[], object] | None = None
        self._served: frozenset[bytes] = frozenset()
        self._new_since = math.inf
        self._heard_latched_at = math.inf
        self._live_messages, self._live_messages_before = 0, 0
        self._now = 0.0
        live.registerCallback(self._on_live)

    def follow(self, publishers: LinkState, now: float) -> None:
        """Open or close the latched subscription, as the topic's present publishers need it.

        Args:
            now: seconds of a monotonic clock.
        """
        self._now = now
        self._served &= publishers.latched
        if publishers.latched <= self._served:
            self.close()
            return
        if math.isinf(self._new_since):
            self._new_since, self._live_messages_before = now, self._live_messages
        if publishers.volatile and self._live_messages > self._live_messages_before:
            self._end(publishers)
        elif self._close is not None:
            if now - self._heard_latched_at >= _KEPT_OPEN:
                self._end(publishers)
        elif not publishers.volatile or now - self._new_since >= _PATIENCE:
            latched, self._close = self._open_latched()
            latched.registerCallback(self._on_latched)

    def close(self) -> None:
        """Close the latched subscription."""
        if self._close is not None:
            self._close()
        self._close = None
        self._new_since = self._heard_latched_at = math.inf

    def _end(self, publishers: LinkState) -> None:
        self._served = publishers.latched
        self.close()

    def _on_live(self, info: Any) -> None:
        self._live_messages += 1
        self.signalMessage(info)

    def _on_latched(self, info: Any) -> None:
        self._heard_latched_at = min(self._heard_latched_at, self._now)
        self.signalMessage(info)
