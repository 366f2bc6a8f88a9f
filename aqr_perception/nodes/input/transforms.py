"""TF -> extrinsics and ego motion, as (4, 4) matrices."""

import time
from collections.abc import Callable

import numpy as np
import tf2_ros
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.time import Time

from aqr_perception.geometry import rigid_transform
from aqr_perception.nodes.input.message_error import TransformError

_POLL_SECONDS = 0.005


class FrameTransforms:
    """Transforms of one frame, looked up in a tf2_ros.Buffer that other threads fill.

    Transforms come later than the data that they belong to, so lookups of one frame together wait up to a limit. Pairs
    of frames that TF does not connect at all are kept in `hopeless` from frame to frame and are not waited for again
    until they have been found once, so that a camera without TF does not slow every frame down.

    Args:
        fixed_frame: the frame through which the vehicle's motion is known; empty: transforms are taken as static, and
            the latest ones are used whatever the times asked for.
        wait: seconds that all lookups together may wait.
    """

    def __init__(
        self,
        buffer: tf2_ros.Buffer,
        fixed_frame: str = "",
        wait: float = 0.0,
        hopeless: set[tuple[str, str]] | None = None,
    ) -> None:
        self._buffer = buffer
        self._fixed_frame = fixed_frame
        self._deadline = time.monotonic() + wait
        self._hopeless = set() if hopeless is None else hopeless

    def lookup(self, target_frame: str, target_ns: int, source_frame: str, source_ns: int) -> NDArray[np.float64]:
        """Return the (4, 4) float64 matrix that takes points in the source frame, at its time, to the target frame.

        Raises:
            TransformError: the frames are not connected at these times.
        """
        if self._fixed_frame:
            target_time, source_time = Time(nanoseconds=target_ns), Time(nanoseconds=source_ns)

            def attempt() -> TransformStamped:
                return self._buffer.lookup_transform_full(
                    target_frame, target_time, source_frame, source_time, self._fixed_frame
                )
        else:

            def attempt() -> TransformStamped:
                return self._buffer.lookup_transform(target_frame, source_frame, Time())

        pair = (target_frame, source_frame)
        try:
            found = self._patiently(attempt, pair)
        except tf2_ros.TransformException as error:
            raise self._missing(pair, target_ns, source_ns, error) from error
        self._hopeless.discard(pair)
        return matrix_from_message(found)

    def _patiently(self, attempt: Callable[[], TransformStamped], pair: tuple[str, str]) -> TransformStamped:
        while True:
            try:
                return attempt()
            except tf2_ros.TransformException as error:
                late = isinstance(error, tf2_ros.ExtrapolationException)  # known frames, transforms under way
                if (pair in self._hopeless and not late) or time.monotonic() >= self._deadline:
                    self._hopeless.add(pair)
                    raise
            time.sleep(_POLL_SECONDS)

    def _missing(self, pair: tuple[str, str], target_ns: int, source_ns: int, error: Exception) -> TransformError:
        target, source = pair
        reason = str(error) or type(error).__name__
        if self._fixed_frame:
            needed = (
                f"{source} at {source_ns / 1e9:.6f} s -> {target} at {target_ns / 1e9:.6f} s via {self._fixed_frame}"
            )
            remedy = "publish it on /tf or /tf_static, or leave `fixed_frame` empty where the vehicle stands still"
        else:
            needed = f"{source} -> {target}"
            remedy = "publish it on /tf_static (robot_state_publisher or static_transform_publisher)"
        return TransformError("/tf", "no transform", reason, needed, remedy)


def matrix_from_message(message: TransformStamped) -> NDArray[np.float64]:
    """Return the (4, 4) float64 matrix that takes points in `child_frame_id` to `header.frame_id`."""
    translation, rotation = message.transform.translation, message.transform.rotation
    return rigid_transform(
        [translation.x, translation.y, translation.z], [rotation.x, rotation.y, rotation.z, rotation.w]
    )
