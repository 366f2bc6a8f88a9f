"""Buffer: the transform buffer of a node, with waiting, a frame service and clearing when time jumps back."""

import threading
from collections.abc import Callable
from typing import Any, Final

from geometry_msgs.msg import TransformStamped
from rclpy.clock import Clock, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.task import Future
from rclpy.time import Time
from tf2_msgs.srv import FrameGraph
from tf2_py import BufferCore

from tf2_ros.buffer_interface import BufferInterface

POLL_PERIOD: Final = 0.02
"""Seconds: the longest sleep before a waiting look-up checks the clock again."""
LARGEST_CLOCK_SLIP: Final = Duration(seconds=3.0)


class Buffer(BufferCore, BufferInterface):
    """Keeps transforms for `cache_time` (default 10 s).

    With a `node` it offers the service `tf2_frames`, and forgets all moving transforms when the node's clock is
    set back by a second or more or changes its source; static ones stay.
    """

    def __init__(self, cache_time: Duration | None = None, node: Node | None = None) -> None:
        BufferCore.__init__(self, cache_time)
        BufferInterface.__init__(self)
        self._new_data = threading.Condition()
        self._new_data_callbacks: list[Callable[[], None]] = []
        if node is not None:
            self.srv = node.create_service(FrameGraph, "tf2_frames", self._serve_frames)
            self.clock = node.get_clock()
        else:
            self.clock = Clock()
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True)
        self.jump_handle = self.clock.create_jump_callback(threshold, post_callback=self.time_jump_callback)

    def _serve_frames(self, request: FrameGraph.Request, response: FrameGraph.Response) -> FrameGraph.Response:
        response.frame_yaml = self.all_frames_as_yaml()
        return response

    def time_jump_callback(self, time_jump: TimeJump) -> None:
        """Forget the moving transforms: after a jump they would be taken for data from the future."""
        get_logger("tf2_buffer").warning("Detected jump back in time. Clearing tf buffer.")
        self.clear()

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        super().set_transform(transform, authority)
        self._announce_new_data()

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        super().set_transform_static(transform, authority)
        self._announce_new_data()

    def _announce_new_data(self) -> None:
        with self._new_data:
            self._new_data.notify_all()
            callbacks = list(self._new_data_callbacks)
        for callback in callbacks:
            callback()

    def lookup_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = Duration(),  # noqa: B008 - immutable, and tf2's signature
    ) -> TransformStamped:
        """The transform from `source_frame` to `target_frame` at a time (0: the newest).

        Waits up to `timeout` for it, which needs somebody else to spin the listener meanwhile. Raises
        LookupException, ConnectivityException, ExtrapolationException or InvalidArgumentException.
        """
        self.can_transform(target_frame, source_frame, time, timeout)
        return self.lookup_transform_core(target_frame, source_frame, time)

    async def lookup_transform_async(self, target_frame: str, source_frame: str, time: Time) -> TransformStamped:
        """As `lookup_transform`, awaiting the transform for as long as it takes."""
        await self.wait_for_transform_async(target_frame, source_frame, time)
        return self.lookup_transform_core(target_frame, source_frame, time)

    def lookup_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = Duration(),  # noqa: B008 - immutable, and tf2's signature
    ) -> TransformStamped:
        """From `source_frame` at `source_time` to `target_frame` at `target_time`, over a frame that stands still.

        Waits and raises as `lookup_transform`.
        """
        self.can_transform_full(target_frame, target_time, source_frame, source_time, fixed_frame, timeout)
        return self.lookup_transform_full_core(target_frame, target_time, source_frame, source_time, fixed_frame)

    async def lookup_transform_full_async(
        self, target_frame: str, target_time: Time, source_frame: str, source_time: Time, fixed_frame: str
    ) -> TransformStamped:
        """As `lookup_transform_full`, awaiting the transform for as long as it takes."""
        await self.wait_for_transform_full_async(target_frame, target_time, source_frame, source_time, fixed_frame)
        return self.lookup_transform_full_core(target_frame, target_time, source_frame, source_time, fixed_frame)

    def can_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = Duration(),  # noqa: B008 - immutable, and tf2's signature
        return_debug_tuple: bool = False,
    ) -> bool | tuple[bool, str]:
        """Whether the transform is known, or becomes known within `timeout`; as a tuple also why not."""
        outcome = self._wait(lambda: self.can_transform_core(target_frame, source_frame, time), timeout)
        return outcome if return_debug_tuple else outcome[0]

    def can_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = Duration(),  # noqa: B008 - immutable, and tf2's signature
        return_debug_tuple: bool = False,
    ) -> bool | tuple[bool, str]:
        """As `can_transform`, for `lookup_transform_full`."""
        outcome = self._wait(
            lambda: self.can_transform_full_core(target_frame, target_time, source_frame, source_time, fixed_frame),
            timeout,
        )
        return outcome if return_debug_tuple else outcome[0]

    def wait_for_transform_async(self, target_frame: str, source_frame: str, time: Time) -> Future:
        """A future that holds the transform as soon as it is known. Cancel it to stop waiting."""
        return self._when(
            lambda: self.can_transform_core(target_frame, source_frame, time)[0],
            lambda: self.lookup_transform_core(target_frame, source_frame, time),
        )

    def wait_for_transform_full_async(
        self, target_frame: str, target_time: Time, source_frame: str, source_time: Time, fixed_frame: str
    ) -> Future:
        """As `wait_for_transform_async`, for `lookup_transform_full`."""
        query = (target_frame, target_time, source_frame, source_time, fixed_frame)
        return self._when(
            lambda: self.can_transform_full_core(*query)[0], lambda: self.lookup_transform_full_core(*query)
        )

    def _wait(self, check: Callable[[], tuple[bool, str]], timeout: Duration) -> tuple[bool, str]:
        """The check's outcome, repeated until it succeeds or `timeout` has passed on the system clock.

        The node's clock will not do: with simulated time it stands still while its executor is blocked here.
        """
        outcome = check()
        if outcome[0] or timeout == Duration():
            return outcome
        clock = Clock()
        start = clock.now()
        while not outcome[0]:
            now = clock.now()
            if now >= start + timeout or now + LARGEST_CLOCK_SLIP < start:
                break
            with self._new_data:
                self._new_data.wait(POLL_PERIOD)
            outcome = check()
        return outcome

    def _when(self, is_known: Callable[[], bool], look_up: Callable[[], Any]) -> Future:
        future: Future = Future()

        def resolve() -> None:
            if future.done() or future.cancelled():
                return
            try:
                if is_known():
                    future.set_result(look_up())
            except Exception as error:
                # The failure belongs to whoever awaits the future, not to the callback that delivered the data.
                future.set_exception(error)

        def forget(_: Future) -> None:
            with self._new_data:
                if resolve in self._new_data_callbacks:
                    self._new_data_callbacks.remove(resolve)

        with self._new_data:
            self._new_data_callbacks.append(resolve)
        future.add_done_callback(forget)
        # Registered before the first check, so that data arriving in between is not missed.
        resolve()
        return future
