# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""BufferCore: the frame tree over time, with lookups of transforms between frames.

Interface, semantics and texts are a subset of ROS 2 Kilted's tf2_py and tf2.
"""

import math
import threading
import warnings
from typing import Any, Final

from geometry_msgs.msg import Quaternion, TransformStamped, Vector3
from rclpy.logging import get_logger

from tf2_py.composition import RigidTransform, compose
from tf2_py.exceptions import InvalidArgumentException, LookupException
from tf2_py.frame_tree import FrameTree
from tf2_py.stamps import LATEST, NANOSECONDS_PER_SECOND, display, nanoseconds, to_message
from tf2_py.time_cache import Sample

DEFAULT_CACHE_TIME: Final = 10 * NANOSECONDS_PER_SECOND
QUATERNION_NORMALIZATION_TOLERANCE: Final = 10e-3
"""Tolerance of a quaternion's squared norm."""


class BufferCore:
    """Thread-safe tree of frames that keeps poses for `cache_time` (rclpy Duration or message, default 10 s)."""

    def __init__(self, cache_time: Any = None) -> None:
        self._tree = FrameTree(DEFAULT_CACHE_TIME if cache_time is None else nanoseconds(cache_time, "duration"))
        self._tree_lock = threading.RLock()

    # Storing

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Store the pose of `child_frame_id` in `header.frame_id` at `header.stamp`.

        A malformed or outdated pose is logged and dropped. Raises TypeError for fields of the wrong type.
        """
        self._store(transform, authority, is_static=False)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Store a pose that is valid at every time, with any stamp."""
        self._store(transform, authority, is_static=True)

    def clear(self) -> None:
        """Drop all moving poses; keep frame names and static poses."""
        with self._tree_lock:
            self._tree.clear()

    # Looking up

    def lookup_transform_core(self, target_frame: str, source_frame: str, time: Any) -> TransformStamped:
        """The transform that carries coordinates from `source_frame` to `target_frame` at a time (0: the newest).

        Raises LookupException, ConnectivityException, ExtrapolationException or InvalidArgumentException.
        """
        stamp = nanoseconds(time)
        with self._tree_lock:
            if target_frame != source_frame:
                self._validate(target_frame=target_frame, source_frame=source_frame)
            stamp = self._own_stamp(target_frame, source_frame, stamp)
            hops, stamp = self._tree.path(target_frame, source_frame, stamp)
        return _to_message(compose(hops), target_frame, source_frame, stamp)

    def lookup_transform_full_core(
        self, target_frame: str, target_time: Any, source_frame: str, source_time: Any, fixed_frame: str
    ) -> TransformStamped:
        """The transform from `source_frame` at `source_time` to `target_frame` at `target_time`, via a fixed frame.

        Raises the same as `lookup_transform_core`.
        """
        target_stamp, source_stamp = nanoseconds(target_time), nanoseconds(source_time)
        with self._tree_lock:
            self._validate(target_frame=target_frame, source_frame=source_frame, fixed_frame=fixed_frame)
            to_fixed, _ = self._tree.path(fixed_frame, source_frame, source_stamp)
            stamp = self._own_stamp(target_frame, fixed_frame, target_stamp)
            to_target, stamp = self._tree.path(target_frame, fixed_frame, stamp)
        return _to_message(compose(to_fixed + to_target), target_frame, source_frame, stamp)

    # Inner workings

    def _store(self, transform: TransformStamped, authority: str, is_static: bool) -> None:
        rotation, translation = transform.transform.rotation, transform.transform.translation
        if not isinstance(translation, Vector3):
            warnings.warn("translation should be of type Vector3", UserWarning, stacklevel=3)
            raise TypeError("transform.translation must have members x, y, z")
        if not isinstance(rotation, Quaternion):
            warnings.warn("rotation should be of type Quaternion", UserWarning, stacklevel=3)
        child = transform.child_frame_id.removeprefix("/")
        sample = Sample(
            nanoseconds(transform.header.stamp),
            transform.header.frame_id.removeprefix("/"),
            (float(rotation.x), float(rotation.y), float(rotation.z), float(rotation.w)),
            (float(translation.x), float(translation.y), float(translation.z)),
        )
        faults = _faults(child, sample, authority)
        for fault in faults:
            get_logger("tf2").error(fault)
        if faults:
            return
        with self._tree_lock:
            stored = self._tree.insert(child, sample, is_static)
        if not stored:
            get_logger("tf2").warning(
                f"TF_OLD_DATA ignoring data from the past for frame {child} at time {display(sample.stamp)} according "
                f"to authority {authority}\nPossible reasons are listed at "
                "http://wiki.ros.org/tf/Errors%20explained"
            )

    def _own_stamp(self, target: str, source: str, stamp: int) -> int:
        """Time 0 of a frame relative to itself is its newest sample, if it is known at all."""
        if target != source or stamp != LATEST:
            return stamp
        return self._tree.latest_common_time(target, source)

    def _validate(self, **frames: str) -> None:
        for argument, frame in frames.items():
            place = f"lookupTransform argument {argument}"
            reason = self._invalid(frame)
            if reason is not None:
                raise InvalidArgumentException(f'Invalid argument "{frame}" passed to {place} - {reason}')
            if frame not in self._tree.frames:
                raise LookupException(f'"{frame}" passed to {place} does not exist. ')

    @staticmethod
    def _invalid(frame: str) -> str | None:
        if not isinstance(frame, str):
            raise TypeError(f"a frame name must be str, not {type(frame).__name__}")
        if not frame:
            return "in tf2 frame_ids cannot be empty"
        if frame.startswith("/"):
            return "in tf2 frame_ids cannot start with a '/'"
        return None


def _faults(child: str, sample: Sample, authority: str) -> list[str]:
    """The reasons why a pose cannot be stored, one sentence each."""
    numbers = (*sample.translation, *sample.rotation)
    norm = sum(component * component for component in sample.rotation)
    translation, rotation = _bracketed(sample.translation), _bracketed(sample.rotation)
    faults = []
    if child == sample.parent:
        faults.append(
            f'TF_SELF_TRANSFORM: Ignoring transform from authority "{authority}" with frame_id and  child_frame_id '
            f'"{child}" because they are the same'
        )
    if not child:
        faults.append(
            f'TF_NO_CHILD_FRAME_ID: Ignoring transform from authority "{authority}" because child_frame_id not set '
        )
    if not sample.parent:
        faults.append(
            f'TF_NO_FRAME_ID: Ignoring transform with child_frame_id "{child}"  from authority "{authority}" because '
            "frame_id not set"
        )
    if any(map(math.isnan, numbers)):
        faults.append(
            f'TF_NAN_INPUT: Ignoring transform for child_frame_id "{child}" from authority "{authority}" because of a '
            f"nan value in the transform {translation} {rotation}"
        )
    if not abs(norm - 1.0) < QUATERNION_NORMALIZATION_TOLERANCE:
        faults.append(
            f'TF_DENORMALIZED_QUATERNION: Ignoring transform for child_frame_id "{child}" from authority '
            f'"{authority}" because of an invalid quaternion in the transform {rotation}'
        )
    return faults


def _bracketed(numbers: tuple[float, ...]) -> str:
    return "(" + " ".join(f"{number:f}" for number in numbers) + ")"


def _to_message(transform: RigidTransform, target: str, source: str, stamp: int) -> TransformStamped:
    message = TransformStamped()
    message.header.stamp = to_message(stamp)
    message.header.frame_id = target
    message.child_frame_id = source
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = transform.translation
    rotation.x, rotation.y, rotation.z, rotation.w = transform.rotation
    return message
