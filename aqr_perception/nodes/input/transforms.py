"""Extrinsics and ego motion from TF, as (4, 4) matrices."""

import time

import numpy as np
import tf2_ros
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.time import Time
from tf_transformations import quaternion_matrix

from aqr_perception.nodes.input.message_error import TransformError

_POLL_SECONDS = 0.005
_FURTHEST = 1e8
"""Metres; farther than any two places on Earth, in a map whose origin is far away."""

FramePair = tuple[str, str]
"""Target frame and source frame of a lookup."""


class FrameTransforms:
    """All transform lookups of one frame, in a tf2_ros.Buffer that another thread fills.

    Transforms arrive later than their data. The lookups of a frame share one deadline, so the frame waits only once.
    Later frames do not wait for a pair of TF frames that TF did not connect, until a lookup finds it. So a camera
    without TF does not slow down every frame.

    Args:
        fixed_frame: TF frame in which the vehicle's motion is known. Empty: transforms are static, and lookups use the
            latest ones.
        wait: seconds after construction during which lookups may wait.
        unconnected: pairs that TF did not connect in earlier frames; lookups update it.
    """

    def __init__(
        self,
        buffer: tf2_ros.Buffer,
        fixed_frame: str = "",
        wait: float = 0.0,
        unconnected: set[FramePair] | None = None,
    ) -> None:
        self._buffer = buffer
        self._fixed_frame = fixed_frame
        self._deadline = time.monotonic() + wait
        self._unconnected = set() if unconnected is None else unconnected

    def lookup(self, target_frame: str, target_ns: int, source_frame: str, source_ns: int) -> NDArray[np.float64]:
        """Return the (4, 4) float64 matrix that moves points from the source frame, at its time, to the target frame.

        Raises:
            TransformError: TF does not connect the frames at these times, or has numbers that are not finite.
        """
        pair = (target_frame, source_frame)
        while True:
            try:
                found = self._look_up_now(target_frame, target_ns, source_frame, source_ns)
            except tf2_ros.TransformException as error:
                # An extrapolation error means that TF knows both frames and the transform is late.
                known = isinstance(error, tf2_ros.ExtrapolationException) or pair not in self._unconnected
                if known and time.monotonic() < self._deadline:
                    time.sleep(_POLL_SECONDS)
                    continue
                self._unconnected.add(pair)
                raise self._missing(pair, target_ns, source_ns, error) from error
            except (OverflowError, ValueError) as error:  # rclpy has no times before 1970
                raise self._missing(pair, target_ns, source_ns, error) from error
            self._unconnected.discard(pair)
            matrix = matrix_from_message(found)
            if not (np.isfinite(matrix).all() and np.abs(matrix[:3, 3]).max() <= _FURTHEST):
                raise self._missing(pair, target_ns, source_ns, ValueError(f"translation {matrix[:3, 3].tolist()}"))
            return matrix

    def _look_up_now(self, target_frame: str, target_ns: int, source_frame: str, source_ns: int) -> TransformStamped:
        if not self._fixed_frame:
            return self._buffer.lookup_transform(target_frame, source_frame, Time())
        target_time, source_time = Time(nanoseconds=target_ns), Time(nanoseconds=source_ns)
        return self._buffer.lookup_transform_full(
            target_frame, target_time, source_frame, source_time, self._fixed_frame
        )

    def _missing(self, pair: FramePair, target_ns: int, source_ns: int, error: Exception) -> TransformError:
        target, source = pair
        found = str(error) or type(error).__name__
        if self._fixed_frame:
            needed = (
                f"{source} at {source_ns / 1e9:.6f} s -> {target} at {target_ns / 1e9:.6f} s via {self._fixed_frame}"
            )
            remedy = "publish it on /tf or /tf_static, or leave `fixed_frame` empty if the vehicle does not move"
        else:
            needed = f"{source} -> {target}"
            remedy = "publish it on /tf_static (robot_state_publisher or static_transform_publisher)"
        return TransformError("/tf", "no transform", found, needed, remedy)


def matrix_from_message(message: TransformStamped) -> NDArray[np.float64]:
    """Return the (4, 4) float64 matrix that moves points from `child_frame_id` to `header.frame_id`."""
    translation, rotation = message.transform.translation, message.transform.rotation
    matrix: NDArray[np.float64] = quaternion_matrix((rotation.x, rotation.y, rotation.z, rotation.w))
    matrix[:3, 3] = (translation.x, translation.y, translation.z)
    return matrix
