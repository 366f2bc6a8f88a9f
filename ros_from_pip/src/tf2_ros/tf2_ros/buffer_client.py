"""BufferClient: look-ups answered by a buffer in another process, over the LookupTransform action."""

import threading
import warnings
from typing import Any, Final

import builtin_interfaces.msg
from geometry_msgs.msg import TransformStamped
from rclpy.action.client import ActionClient
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.task import Future
from rclpy.time import Time
from tf2_msgs.action import LookupTransform
from tf2_msgs.msg import TF2Error
from tf2_py import (
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TimeoutException,
    TransformException,
)

from tf2_ros.buffer_interface import BufferInterface

EXCEPTIONS: Final = {
    TF2Error.LOOKUP_ERROR: LookupException,
    TF2Error.CONNECTIVITY_ERROR: ConnectivityException,
    TF2Error.EXTRAPOLATION_ERROR: ExtrapolationException,
    TF2Error.INVALID_ARGUMENT_ERROR: InvalidArgumentException,
    TF2Error.TIMEOUT_ERROR: TimeoutException,
}


class BufferClient(BufferInterface):
    """Asks the buffer server in namespace `ns`. Another thread has to spin `node` meanwhile.

    `timeout_padding` is added to each look-up's own timeout before the server is given up. `check_frequency` (Hz)
    is how often the original polls; here the answer is waited for directly.
    """

    def __init__(
        self,
        node: Node,
        ns: str,
        check_frequency: float = 10.0,
        timeout_padding: Duration | float = Duration(seconds=2.0),  # noqa: B008 - immutable, and tf2's signature
    ) -> None:
        super().__init__()
        self.node = node
        self.action_client: ActionClient = ActionClient(node, LookupTransform, action_name=ns)
        self.check_frequency = check_frequency
        self.timeout_padding = timeout_padding

    def lookup_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = Duration(),  # noqa: B008 - immutable, and tf2's signature
    ) -> TransformStamped:
        """The transform from `source_frame` to `target_frame` at a time (0: the newest).

        Raises the server's exception, TimeoutException where no server answers, TypeError for another time type.
        """
        if isinstance(time, builtin_interfaces.msg.Time):
            warnings.warn(
                "Passing a builtin_interfaces.msg.Time argument is deprecated, and will be removed in the near "
                "future. Use rclpy.time.Time instead.",
                stacklevel=2,
            )
            time = Time.from_msg(time)
        elif not isinstance(time, Time):
            raise TypeError("Must pass a rclpy.time.Time object.")
        goal = LookupTransform.Goal(
            target_frame=target_frame,
            source_frame=source_frame,
            source_time=time.to_msg(),
            timeout=timeout.to_msg(),
            advanced=False,
        )
        return self._process(goal)

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

        Raises as `lookup_transform`.
        """
        goal = LookupTransform.Goal(
            target_frame=target_frame,
            target_time=target_time.to_msg(),
            source_frame=source_frame,
            source_time=source_time.to_msg(),
            fixed_frame=fixed_frame,
            timeout=timeout.to_msg(),
            advanced=True,
        )
        return self._process(goal)

    def can_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = Duration(),  # noqa: B008 - immutable, and tf2's signature
    ) -> bool:
        """Whether `lookup_transform` succeeds."""
        try:
            self.lookup_transform(target_frame, source_frame, time, timeout)
        except TransformException:
            return False
        return True

    def can_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = Duration(),  # noqa: B008 - immutable, and tf2's signature
    ) -> bool:
        """Whether `lookup_transform_full` succeeds."""
        try:
            self.lookup_transform_full(target_frame, target_time, source_frame, source_time, fixed_frame, timeout)
        except TransformException:
            return False
        return True

    def destroy(self) -> None:
        """Release the action client."""
        self.action_client.destroy()

    def _process(self, goal: LookupTransform.Goal) -> TransformStamped:
        if not self.action_client.server_is_ready():
            raise TimeoutException("The BufferServer is not ready.")
        # The original's own tests also pass the padding as a number of seconds.
        padding = self.timeout_padding
        padding_seconds = padding.nanoseconds * 1e-9 if isinstance(padding, Duration) else padding
        patience = Duration.from_msg(goal.timeout).nanoseconds * 1e-9 + padding_seconds
        goal_handle = _await(self.action_client.send_goal_async(goal), patience)
        if not goal_handle.accepted:
            raise TimeoutException(
                "The LookupTransform goal sent to the BufferServer did not come back with accepted status. "
                "Something is likely wrong with the server."
            )
        result = _await(goal_handle.get_result_async(), patience).result
        if result.error.error != TF2Error.NO_ERROR:
            raise EXCEPTIONS.get(result.error.error, TransformException)(result.error.error_string)
        return result.transform


def _await(future: Future, patience: float) -> Any:
    """The future's result, waited for at most `patience` seconds."""
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    if not done.wait(patience):
        raise TimeoutException(
            "The LookupTransform goal sent to the BufferServer did not come back in the specified time. "
            "Something is likely wrong with the server."
        )
    return future.result()
