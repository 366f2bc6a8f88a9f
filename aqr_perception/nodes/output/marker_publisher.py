# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Publication of RViz markers, which vanish when no newer ones come."""

import threading
import time
from collections.abc import Callable

from builtin_interfaces.msg import Duration
from rclpy.node import Node
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray


class MarkerPublisher:
    """A topic of markers. Thread-safe.

    Markers have a lifetime. RViz counts it by its own clock, which stops with a paused bag, so the node also deletes
    the markers itself.

    Args:
        lifetime: seconds after which markers vanish.
        clock: a monotonic clock, in seconds.
        topic: the topic's name.
    """

    def __init__(
        self,
        node: Node,
        depth: int,
        lifetime: float,
        clock: Callable[[], float] = time.monotonic,
        topic: str = "~/markers",
    ) -> None:
        self.topic = node.create_publisher(MarkerArray, topic, depth)
        self._lifetime, self._clock = lifetime, clock
        self._lock = threading.Lock()
        self._shown: tuple[float, Header] | None = None

    def publish(self, markers: MarkerArray) -> None:
        """Publish markers, of which the first one deletes the earlier ones."""
        seconds = int(self._lifetime)
        lifetime = Duration(sec=seconds, nanosec=int((self._lifetime - seconds) * 1e9))
        for marker in markers.markers[1:]:
            marker.lifetime = lifetime
        with self._lock:
            self._shown = (self._clock(), markers.markers[0].header)
            self.topic.publish(markers)

    def delete_old(self) -> None:
        """Delete the published markers if their lifetime is over."""
        with self._lock:
            if self._shown is not None and self._clock() - self._shown[0] > self._lifetime:
                self._delete()

    def delete(self) -> None:
        """Delete the published markers, because the node makes no newer ones."""
        with self._lock:
            if self._shown is not None:
                self._delete()

    def _delete(self) -> None:
        if self._shown is not None:
            self.topic.publish(MarkerArray(markers=[Marker(header=self._shown[1], action=Marker.DELETEALL)]))
            self._shown = None
