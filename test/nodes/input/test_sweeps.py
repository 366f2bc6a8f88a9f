# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Past sweeps are moved to the time of the newest one."""

import numpy as np
import pytest
import tf2_ros
from geometry_msgs.msg import TransformStamped
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.decoding.message_error import TransformError
from aqr_perception.geometry import invert, quaternion_xyzw, rigid_transform, transform_points
from aqr_perception.nodes.input.sweeps import SweepBuffer, joined
from aqr_perception.nodes.input.transforms import FrameTransforms
from aqr_perception.nodes.stamps import ns_to_stamp

PERIOD = 50_000_000
START = 1_500_000_000_000_000_000


def sent(buffer: tf2_ros.Buffer, pose: np.ndarray, stamp_ns: int) -> None:
    message = TransformStamped(child_frame_id="lidar")
    message.header.frame_id, message.header.stamp = "map", ns_to_stamp(stamp_ns)
    move, turn = message.transform.translation, message.transform.rotation
    move.x, move.y, move.z = pose[:3, 3].tolist()
    turn.x, turn.y, turn.z, turn.w = quaternion_xyzw(pose).tolist()
    buffer.set_transform(message, "test")


def with_intensity(points: np.ndarray, intensity: float) -> np.ndarray:
    return np.c_[points, np.full(len(points), intensity)].astype(np.float32)


@given(
    st.integers(1, 10),
    st.integers(1, 12),
    st.tuples(*[st.floats(-2, 2)] * 3),
    st.tuples(*[st.floats(-0.2, 0.2)] * 3),
)
@settings(max_examples=25, deadline=None)
def test_a_static_world_stays_in_place_while_the_vehicle_moves(
    max_sweeps: int, count: int, step: tuple[float, ...], turn: tuple[float, ...]
) -> None:
    world = np.array([[10.0, 3.0, 1.0], [-7.0, 12.0, 0.5], [30.0, -20.0, 2.0]])
    motion = rigid_transform(step, [*turn, 1.0])
    buffer, sweeps, pose = tf2_ros.Buffer(), SweepBuffer(), np.eye(4)
    for index in range(count):
        stamp_ns = START + index * PERIOD
        sent(buffer, pose, stamp_ns)
        sweeps.add(stamp_ns, "lidar", with_intensity(transform_points(invert(pose), world), index))
        newest, pose = pose, pose @ motion
    stamps_ns = [START + index * PERIOD for index in reversed(range(count))][:max_sweeps]
    clouds, warnings = sweeps.moved(stamps_ns, "lidar", stamp_ns, FrameTransforms(buffer, "map"))
    points = joined(clouds)
    kept = min(max_sweeps, count)
    assert warnings == []
    assert points.dtype == np.float32
    seen = points.reshape(kept, 3, 5)
    expected = transform_points(invert(newest), world)
    for age in range(kept):
        np.testing.assert_allclose(seen[age, :, :3], expected, atol=2e-3)
        np.testing.assert_array_equal(seen[age, :, 3], count - 1 - age)
        np.testing.assert_allclose(seen[age, :, 4], age * 0.05, atol=1e-6)


def test_a_past_sweep_without_transform_is_left_out_and_named() -> None:
    buffer, sweeps = tf2_ros.Buffer(), SweepBuffer()
    for index in range(3):
        sweeps.add(START + index * PERIOD, "lidar", with_intensity(np.ones((2, 3)), index))
    sent(buffer, np.eye(4), START + PERIOD)
    sent(buffer, np.eye(4), START + 2 * PERIOD)
    stamps_ns = [START + index * PERIOD for index in (2, 1, 0)]
    clouds, warnings = sweeps.moved(stamps_ns, "lidar", stamps_ns[0], FrameTransforms(buffer, "map"))
    assert [len(cloud) for cloud in clouds] == [2, 2]
    (warning,) = warnings
    assert warning.startswith("the sweep 0.100 s ago is left out: /tf: no transform")


def test_the_newest_sweep_in_its_own_frame_needs_no_transform() -> None:
    sweeps = SweepBuffer()
    sweeps.add(START, "lidar", with_intensity(np.ones((2, 3)), 5))
    (points,), warnings = sweeps.moved([START], "lidar", START, FrameTransforms(tf2_ros.Buffer()))
    np.testing.assert_array_equal(points, [[1, 1, 1, 5, 0]] * 2)
    assert warnings == []


def test_a_newest_sweep_that_cannot_be_moved_is_an_error() -> None:
    sweeps = SweepBuffer()
    sweeps.add(START, "lidar", with_intensity(np.ones((2, 3)), 5))
    with pytest.raises(TransformError, match="lidar -> base_link"):
        sweeps.moved([START], "base_link", START, FrameTransforms(tf2_ros.Buffer()))


def test_sweeps_between_the_chosen_ones_stay_and_those_outside_go() -> None:
    sweeps = SweepBuffer()
    for index in range(6):
        sweeps.add(START + index * PERIOD, "lidar", with_intensity(np.ones((2, 3)), index))
    sweeps.keep_between(START + PERIOD, START + 4 * PERIOD)
    assert [START + index * PERIOD in sweeps for index in range(6)] == [False, True, True, True, True, False]
    clouds, _ = sweeps.moved([START + 4 * PERIOD], "lidar", START + 4 * PERIOD, FrameTransforms(tf2_ros.Buffer()))
    np.testing.assert_array_equal(joined(clouds)[:, 3], [4, 4])
