# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The tracks' topics, and the tracker behind them."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from std_msgs.msg import Header
from vision_msgs.msg import Detection3DArray

from aqr_perception.frame import Frame, Result
from aqr_perception.geometry import invert
from aqr_perception.msg import TrackArray
from aqr_perception.nodes.output import track_messages
from aqr_perception.nodes.output.marker_publisher import MarkerPublisher
from aqr_perception.nodes.stamps import ns_to_stamp
from aqr_perception.tracking.track_list import Tracks
from aqr_perception.tracking.track_options import TrackingOptions
from aqr_perception.tracking.tracker import Tracker

_DEPTH = 5
_TRAIL_NS = 3_000_000_000


class TrackPublisher:
    """The topics ~/tracks, ~/tracks_3d and ~/track_markers.

    Args:
        ids: identities of new tracks, which never repeat.
        fixed_frame: frame in which objects are followed; empty: the model frame, with one warning.
        marker_lifetime: seconds after which markers vanish.
        warn: logs a warning.

    Attributes:
        options: of the next frame; may be replaced at any time.
    """

    def __init__(
        self,
        node: Node,
        options: TrackingOptions,
        ids: Iterator[int],
        fixed_frame: str,
        marker_lifetime: float,
        warn: Callable[[str], Any],
    ) -> None:
        self.options = options
        self._node, self._fixed_frame, self._warn = node, fixed_frame, warn
        self._tracker = Tracker(options, ids)
        self._trails: dict[int, deque[tuple[int, NDArray[np.float64]]]] = {}
        self._period: tuple[Any, ...] = ()
        self._followed: tuple[Tracks, NDArray[np.float64]] | None = None
        self._warned = False
        self._tracks = node.create_publisher(TrackArray, "~/tracks", _DEPTH)
        self._tracks_3d = node.create_publisher(Detection3DArray, "~/tracks_3d", _DEPTH)
        self._markers = MarkerPublisher(node, _DEPTH, marker_lifetime, topic="~/track_markers")

    def publish(
        self, frame: Frame, result: Result, to_output: NDArray[np.float64], output_frame: str, epoch: int
    ) -> None:
        """Follow the objects of a frame and send their tracks; see `follow` and `send`."""
        self.follow(frame, result, epoch)
        self.send(frame.stamp_ns, to_output, output_frame)

    def follow(self, frame: Frame, result: Result, epoch: int) -> NDArray[np.int64] | None:
        """Follow the objects of a frame; without `tracking.enabled`, only forget them.

        Args:
            epoch: number of time jumps before the frame; all tracks end at a jump.

        Returns:
            (N,) identity of each detection's track, 0 for those without; None: objects are not followed.
        """
        self._followed = None
        if not self.options.enabled:
            self.clear()
            return None
        self._tracker.options = self.options
        # Tracks of one frame of reference mean nothing in another.
        reference = self._fixed_frame or frame.frame_id
        if self._period != (epoch, reference):
            self.clear()
            self._period = (epoch, reference)
        if self._fixed_frame and frame.to_fixed is None:
            self._warn(f"no ~/tracks: found no transform to fixed_frame {self._fixed_frame} at the frame's time")
            return None
        if not self._fixed_frame and not self._warned:
            self._warned = True
            self._warn(
                "tracking without fixed_frame follows objects in the model frame: the vehicle's own motion looks like "
                "theirs, and fast turns break tracks; set fixed_frame to a TF frame fixed to the world, e.g. odom"
            )
        to_fixed = np.eye(4) if not self._fixed_frame or frame.to_fixed is None else frame.to_fixed
        tracks = self._tracker.update(frame.stamp_ns, result.detections, to_fixed)
        self._extend_trails(tracks, frame.stamp_ns)
        self._followed = tracks, to_fixed
        return self._tracker.ids

    def send(self, stamp_ns: int, to_output: NDArray[np.float64], output_frame: str) -> None:
        """Publish the tracks of the followed frame, if there are any.

        Args:
            to_output: (4, 4), model frame -> output frame.
        """
        if self._followed is not None:
            tracks, to_fixed = self._followed
            header = Header(stamp=ns_to_stamp(stamp_ns), frame_id=output_frame)
            self._send(tracks, to_output @ invert(to_fixed), header)

    def clear(self) -> None:
        """End all tracks."""
        self._tracker.clear()
        self._trails = {}
        self._followed = None

    def delete_old_markers(self) -> None:
        """Delete markers in RViz that no newer frame has replaced in time."""
        self._markers.delete_old()

    def delete_markers(self) -> None:
        """Delete all markers in RViz, because the node stops."""
        self._markers.delete()

    def destroy(self) -> None:
        """Destroy all publishers."""
        self._markers.delete()
        for publisher in (self._tracks, self._tracks_3d, self._markers.topic):
            self._node.destroy_publisher(publisher)

    def _extend_trails(self, tracks: Tracks, stamp_ns: int) -> None:
        """Lengthen the trails; those of ended tracks go."""
        trails = {}
        for track, box in zip(tracks.ids.tolist(), tracks.boxes, strict=True):
            trail = trails[track] = self._trails.get(track, deque())
            trail.append((stamp_ns, box[:3].copy()))
            while trail[0][0] < stamp_ns - _TRAIL_NS:
                trail.popleft()
        self._trails = trails

    def _send(self, tracks: Tracks, to_output: NDArray[np.float64], header: Header) -> None:
        reference = self._period[1]
        self._tracks.publish(track_messages.track_array(tracks, to_output, header, reference))
        if self._tracks_3d.get_subscription_count():
            self._tracks_3d.publish(track_messages.tracks_3d(tracks, to_output, header))
        if self._markers.topic.get_subscription_count():
            trails = {track: [position for _, position in trail] for track, trail in self._trails.items()}
            self._markers.publish(track_messages.track_markers(tracks, trails, to_output, header))
