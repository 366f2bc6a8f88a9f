"""Mean velocity of a frame over a time window (BufferCore::lookupVelocity in tf2/src/buffer_core.cpp)."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tf2_py.composition import RigidTransform
from tf2_py.stamps import NANOSECONDS_PER_SECOND

Vector = tuple[float, float, float]
Lookup = Callable[[str, str, int], RigidTransform]
"""target frame, source frame, stamp in nanoseconds -> transform."""


def mean_velocity(
    lookup: Lookup,
    tracking_frame: str,
    observation_frame: str,
    reference_frame: str,
    reference_point: Vector,
    reference_point_frame: str,
    stamp: int,
    window: int,
    newest: int,
) -> tuple[Vector, Vector]:
    """Linear (m/s) and angular (rad/s) velocity of `tracking_frame` as seen from `observation_frame`.

    The window of `window` nanoseconds is centred on `stamp` and ends no later than `newest`; the result is
    expressed in `reference_frame`, about `reference_point` of `reference_point_frame`. Raises what `lookup` raises.
    """
    window_seconds = window / NANOSECONDS_PER_SECOND
    end_time = min(stamp / NANOSECONDS_PER_SECOND + 0.5 * window_seconds, newest / NANOSECONDS_PER_SECOND)
    # The original keeps the start 10 microseconds above zero, because time 0 would mean "latest".
    start_time = max(0.00001 + window_seconds, end_time) - window_seconds
    start = lookup(observation_frame, tracking_frame, _stamp(start_time))
    end = lookup(observation_frame, tracking_frame, _stamp(end_time))
    interval = end_time - start_time

    start_rotation = Rotation.from_quat(start.rotation)
    turn = start_rotation.inv() * Rotation.from_quat(end.rotation)
    linear = (np.array(end.translation) - np.array(start.translation)) / interval
    angular = start_rotation.apply(turn.as_rotvec()) / interval

    pose = lookup(reference_frame, tracking_frame, stamp)
    rotation = Rotation.from_quat(pose.rotation)
    out_angular = rotation.apply(angular)
    out_linear = rotation.apply(linear) + np.cross(pose.translation, out_angular)

    desired = lookup(reference_frame, reference_point_frame, stamp)
    desired_point = Rotation.from_quat(desired.rotation).apply(reference_point) + desired.translation
    # Kept from the original: its vector product is by component here, not the cross product of rigid-body motion.
    out_linear = out_linear + out_angular * (desired_point - pose.translation)
    return _floats(out_linear), _floats(out_angular)


def _stamp(seconds: float) -> int:
    whole = math.floor(seconds)
    return whole * NANOSECONDS_PER_SECOND + round((seconds - whole) * NANOSECONDS_PER_SECOND)


def _floats(vector: NDArray[np.float64]) -> Vector:
    x, y, z = vector.tolist()
    return x, y, z
