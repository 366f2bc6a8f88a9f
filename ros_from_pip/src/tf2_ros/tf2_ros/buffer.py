# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Buffer: the transform buffer of a node, cleared when time jumps back."""

from geometry_msgs.msg import TransformStamped
from rclpy.clock import Clock, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.time import Time
from tf2_py import BufferCore


class Buffer(BufferCore):
    """Keeps transforms for `cache_time` (default 10 s).

    With a `node`, it drops all moving transforms when the node's clock jumps back by a second or more or changes its
    source. It keeps static transforms.
    """

    def __init__(self, cache_time: Duration | None = None, node: Node | None = None) -> None:
        super().__init__(cache_time)
        self.clock = Clock() if node is None else node.get_clock()
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True)
        self.jump_handle = self.clock.create_jump_callback(threshold, post_callback=self.time_jump_callback)

    def time_jump_callback(self, time_jump: TimeJump) -> None:
        """Drop the moving transforms, which are from the future after a jump back."""
        get_logger("tf2_buffer").warning("Detected jump back in time. Clearing tf buffer.")
        self.clear()

    def lookup_transform(self, target_frame: str, source_frame: str, time: Time) -> TransformStamped:
        """Return the transform from `source_frame` to `target_frame` at a time (0: the newest).

        Raises LookupException, ConnectivityException, ExtrapolationException or InvalidArgumentException.
        """
        return self.lookup_transform_core(target_frame, source_frame, time)

    def lookup_transform_full(
        self, target_frame: str, target_time: Time, source_frame: str, source_time: Time, fixed_frame: str
    ) -> TransformStamped:
        """Return the transform from `source_frame` at `source_time` to `target_frame` at `target_time`.

        `fixed_frame`, which does not move, connects the two times. Raises the same as `lookup_transform`.
        """
        return self.lookup_transform_full_core(target_frame, target_time, source_frame, source_time, fixed_frame)
