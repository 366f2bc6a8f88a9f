# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Extrinsics and ego motion from TF, as (4, 4) matrices."""

import time
from collections.abc import Callable, MutableSet
from typing import Any

import numpy as np
import tf2_ros
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.time import Time
from tf_transformations import quaternion_matrix

from aqr_perception.decoding.message_error import TransformError
from aqr_perception.nodes.clocks.stamp_sequence import TOLERANCE_NS, Arrival, StampSequence, Step
from aqr_perception.nodes.stamps import stamp_to_ns

_POLL_SECONDS = 0.005
_FURTHEST = 1e8
"""Metres; farther than any two places on Earth, in a map whose origin is far away."""

LONGEST_TF_AGE = 0.2
"""Seconds by which a moving transform may be older than the data, without `fixed_frame`."""

LONGEST_TF_LEAD = 5.0
"""Seconds by which a transform may be ahead of the sensors; localisation dates some a little ahead."""

_REFUSED_FOR = 2.0
"""Seconds for which a refused transform is reported."""

_MOST_FRAMES, _LONGEST_NAME = 10_000, 1_000
"""Frames, and characters of a name: tf2 never forgets a frame that it has heard of."""

FramePair = tuple[str, str]
"""Target frame and source frame of a lookup."""


class FrameTransforms:
    """All transform lookups of one frame, in a tf2_ros.Buffer that another thread fills.

    Transforms arrive later than their data. The lookups of a frame share one deadline, so the frame waits only once.
    Later frames do not wait for a pair of TF frames that TF did not connect, until a lookup finds it. So a camera
    without TF does not slow down every frame.

    Args:
        fixed_frame: TF frame in which the vehicle's motion is known. Empty: the motion between two sensors' times is
            ignored. A transform that moves is looked up at the earlier time, and may be older by `LONGEST_TF_AGE`.
        wait: seconds after construction during which lookups may wait.
        unconnected: pairs that TF did not connect in earlier frames; lookups update it.
        clock: a monotonic clock, in seconds; None: Python's.
        pause: waits about so many seconds of that clock for more transforms; None: sleeps.
    """

    def __init__(
        self,
        buffer: tf2_ros.Buffer,
        fixed_frame: str = "",
        wait: float = 0.0,
        unconnected: MutableSet[FramePair] | None = None,
        clock: Callable[[], float] | None = None,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self._buffer = buffer
        self._fixed_frame = fixed_frame
        self._clock, self._pause = clock or time.monotonic, pause or time.sleep
        self._deadline = self._clock() + wait
        self._unconnected = set() if unconnected is None else unconnected

    def lookup(self, target_frame: str, target_ns: int, source_frame: str, source_ns: int) -> NDArray[np.float64]:
        """Return the (4, 4) float64 matrix that moves points from the source frame, at its time, to the target frame.

        Raises:
            TransformError: TF does not connect the frames at these times, or has numbers that are not finite.
        """
        pair = (target_frame, source_frame)
        while True:
            late = self._clock() >= self._deadline
            try:
                found = self._look_up_now(target_frame, target_ns, source_frame, source_ns, late)
            except tf2_ros.TransformException as error:
                # An extrapolation error means that TF knows both frames and the transform is late.
                known = isinstance(error, tf2_ros.ExtrapolationException) or pair not in self._unconnected
                if known and not late:
                    self._pause(_POLL_SECONDS)
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

    def _look_up_now(
        self, target_frame: str, target_ns: int, source_frame: str, source_ns: int, late: bool
    ) -> TransformStamped:
        """Return a transform at its time; without `fixed_frame` and when it is `late`, a slightly older one."""
        target_time, source_time = Time(nanoseconds=target_ns), Time(nanoseconds=source_ns)
        if self._fixed_frame:
            return self._buffer.lookup_transform_full(
                target_frame, target_time, source_frame, source_time, self._fixed_frame
            )
        earlier = min(target_time, source_time)
        try:
            return self._buffer.lookup_transform(target_frame, source_frame, earlier)
        except tf2_ros.ExtrapolationException:
            newest = self._buffer.lookup_transform(target_frame, source_frame, Time())
            age = (earlier.nanoseconds - stamp_to_ns(newest.header.stamp)) / 1e9
            if late and 0 <= age <= LONGEST_TF_AGE:
                return newest
            raise

    def _missing(self, pair: FramePair, target_ns: int, source_ns: int, error: Exception) -> TransformError:
        target, source = pair
        found = str(error) or type(error).__name__
        if self._fixed_frame:
            needed = (
                f"{source} at {source_ns / 1e9:.6f} s -> {target} at {target_ns / 1e9:.6f} s via {self._fixed_frame}"
            )
            remedy = "publish it on /tf or /tf_static, or leave `fixed_frame` empty if the vehicle does not move"
        elif isinstance(error, tf2_ros.ExtrapolationException):
            needed = (
                f"{source} -> {target} at {min(target_ns, source_ns) / 1e9:.6f} s or at most {LONGEST_TF_AGE} s before"
            )
            remedy = "publish it on /tf all the time, or on /tf_static if it does not move"
        else:
            needed = f"{source} -> {target}"
            remedy = "publish it on /tf_static (robot_state_publisher or static_transform_publisher)"
        return TransformError("/tf", "no transform", found, needed, remedy)


class TransformBuffer(tf2_ros.Buffer):  # type: ignore[misc]  # ROS 2 is untyped here
    """A tf2_ros.Buffer that one wrong stamp does not block.

    tf2 refuses transforms that are older than the newest one by its memory, so one from the future blocks all others.
    Here, a transform far ahead of the sensors is refused, and moving transforms are forgotten when one frame's stamps
    stay behind its newest one.

    Attributes:
        now_ns: returns the present in the time of the sensors' stamps, in nanoseconds; 0 if it is unknown.
        steady: a monotonic clock, in seconds.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.now_ns: Callable[[], int] = lambda: 0
        self.steady: Callable[[], float] = time.monotonic
        self._sequences: dict[str, StampSequence[tuple[TransformStamped, str]]] = {}
        self._refused: dict[str, tuple[float, str]] = {}
        self._known: set[str] = set()
        super().__init__(*arguments, **named)

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Store a moving transform, unless its stamp is wrong."""
        if self._is_surplus(transform):
            return
        child, stamp_ns = transform.child_frame_id, stamp_to_ns(transform.header.stamp)
        now, now_ns = self.steady(), self.now_ns()
        lead = (stamp_ns - now_ns) / 1e9
        if now_ns > 0 and lead > LONGEST_TF_LEAD:
            self._refused[child] = (now, f"transforms of {child} are {lead:.1f} s ahead of the sensors and refused")
            return
        sequence = self._sequences.setdefault(child, StampSequence(TOLERANCE_NS))
        step = sequence.add(stamp_ns, Arrival(now, now_ns), (transform, authority))
        if step is Step.LEAP and now_ns > 0 and sequence.newest_ns is not None and stamp_ns > sequence.newest_ns:
            step = Step.RESTART  # a pause; the stamp is not ahead of the sensors
        if step is Step.RESTART:
            back = (sequence.newest_ns or 0) > stamp_ns
            held = sequence.take_held()
            if back:
                self._refused[child] = (now, f"the time of {child} went back: all moving transforms are forgotten")
                self.clear()
                self._sequences[child] = sequence
            for one in held:
                super().set_transform(*one.message)
        elif step is not Step.LEAP:
            super().set_transform(transform, authority)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Store a static transform."""
        if not self._is_surplus(transform):
            super().set_transform_static(transform, authority)

    def _is_surplus(self, transform: TransformStamped) -> bool:
        """Return whether a transform has a new frame beyond all that a vehicle has."""
        new = {transform.header.frame_id, transform.child_frame_id} - self._known
        if len(self._known) + len(new) <= _MOST_FRAMES and all(len(name) <= _LONGEST_NAME for name in new):
            self._known |= new
            return False
        text = f"transforms with more than {_MOST_FRAMES} frames or {_LONGEST_NAME} characters in a name are refused"
        self._refused[""] = (self.steady(), text)
        return True

    def clear(self) -> None:
        """Forget all moving transforms."""
        self._sequences.clear()
        super().clear()

    def faults(self) -> list[str]:
        """Return what was wrong with the transforms of the last seconds."""
        now = self.steady()
        return [text for moment, text in list(self._refused.values()) if now - moment <= _REFUSED_FOR]


def matrix_from_message(message: TransformStamped) -> NDArray[np.float64]:
    """Return the (4, 4) float64 matrix that moves points from `child_frame_id` to `header.frame_id`."""
    translation, rotation = message.transform.translation, message.transform.rotation
    matrix: NDArray[np.float64] = quaternion_matrix((rotation.x, rotation.y, rotation.z, rotation.w))
    matrix[:3, 3] = (translation.x, translation.y, translation.z)
    return matrix
