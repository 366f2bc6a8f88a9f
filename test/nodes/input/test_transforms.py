# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Extrinsics from TF at each image's time, waits, and errors that name what is missing."""

import numpy as np
import pytest
import tf2_ros
from geometry_msgs.msg import TransformStamped
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.time import Time

from aqr_perception.decoding.message_error import TransformError
from aqr_perception.geometry import invert, quaternion_xyzw, rigid_transform
from aqr_perception.nodes.input import transforms
from aqr_perception.nodes.input.transforms import FrameTransforms, TransformBuffer, matrix_from_message
from aqr_perception.nodes.stamps import ns_to_stamp

SECOND = 1_000_000_000
START = 1_500_000_000 * SECOND


def stamped(parent: str, child: str, pose: np.ndarray, stamp_ns: int = START) -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id, message.header.stamp = parent, ns_to_stamp(stamp_ns)
    move, turn = message.transform.translation, message.transform.rotation
    move.x, move.y, move.z = pose[:3, 3].tolist()
    turn.x, turn.y, turn.z, turn.w = quaternion_xyzw(pose).tolist()
    return message


coordinates = st.floats(-100, 100)
quaternions = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)
poses = st.builds(rigid_transform, st.tuples(coordinates, coordinates, coordinates), quaternions)


@given(poses, poses, poses, poses)
@settings(max_examples=30, deadline=None)
def test_the_vehicles_motion_between_sweep_and_image_is_in_the_extrinsics(
    lidar_mount: np.ndarray, camera_mount: np.ndarray, at_image: np.ndarray, at_sweep: np.ndarray
) -> None:
    buffer = tf2_ros.Buffer()
    buffer.set_transform_static(stamped("base_link", "lidar", lidar_mount), "test")
    buffer.set_transform_static(stamped("base_link", "camera", camera_mount), "test")
    buffer.set_transform(stamped("map", "base_link", at_image, START), "test")
    buffer.set_transform(stamped("map", "base_link", at_sweep, START + SECOND), "test")

    found = FrameTransforms(buffer, "map").lookup("camera", START, "lidar", START + SECOND)
    expected = invert(camera_mount) @ invert(at_image) @ at_sweep @ lidar_mount
    np.testing.assert_allclose(found, expected, atol=1e-6)

    static = FrameTransforms(buffer).lookup("camera", START, "lidar", START + SECOND)
    np.testing.assert_allclose(static, invert(camera_mount) @ lidar_mount, atol=1e-6)


@given(poses)
@settings(max_examples=20, deadline=None)
def test_a_message_becomes_the_matrix_it_was_made_of(pose: np.ndarray) -> None:
    np.testing.assert_allclose(matrix_from_message(stamped("a", "b", pose)), pose, atol=1e-9)


def test_a_missing_static_transform_is_named() -> None:
    with pytest.raises(
        TransformError, match=r"^/tf: no transform: found .*needed lidar -> camera; publish it on /tf_st"
    ):
        FrameTransforms(tf2_ros.Buffer()).lookup("camera", START, "lidar", START)


def test_a_missing_moving_transform_names_frames_and_times() -> None:
    buffer = tf2_ros.Buffer()
    buffer.set_transform_static(stamped("base_link", "lidar", np.eye(4)), "test")
    buffer.set_transform_static(stamped("base_link", "camera", np.eye(4)), "test")
    buffer.set_transform(stamped("map", "base_link", np.eye(4)), "test")
    with pytest.raises(TransformError) as caught:
        FrameTransforms(buffer, "map").lookup("camera", START, "lidar", START + SECOND)
    assert "lidar at 1500000001.000000 s -> camera at 1500000000.000000 s via map" in str(caught.value)
    assert "`fixed_frame`" in str(caught.value)


def test_a_lookup_waits_for_a_late_transform(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = tf2_ros.Buffer()
    buffer.set_transform(stamped("map", "lidar", np.eye(4)), "test")
    later = rigid_transform([1, 2, 3], [0, 0, 0, 1])
    monkeypatch.setattr(
        transforms.time, "sleep", lambda _: buffer.set_transform(stamped("map", "lidar", later, START + SECOND), "test")
    )
    found = FrameTransforms(buffer, "map", wait=5.0).lookup("map", START + SECOND, "lidar", START + SECOND)
    np.testing.assert_allclose(found, later)


def test_lookups_wait_only_once_for_frames_that_tf_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    clock = iter(np.arange(0, 1000, 0.5))
    monkeypatch.setattr(transforms.time, "sleep", naps.append)
    monkeypatch.setattr(transforms.time, "monotonic", lambda: float(next(clock)))
    unconnected: set[tuple[str, str]] = set()
    buffer = tf2_ros.Buffer()
    with pytest.raises(TransformError):
        FrameTransforms(buffer, wait=2.0, unconnected=unconnected).lookup("camera", START, "lidar", START)
    waited = len(naps)
    assert waited > 0
    with pytest.raises(TransformError):
        FrameTransforms(buffer, wait=2.0, unconnected=unconnected).lookup("camera", START, "lidar", START)
    assert len(naps) == waited

    buffer.set_transform_static(stamped("lidar", "camera", np.eye(4)), "test")
    FrameTransforms(buffer, wait=2.0, unconnected=unconnected).lookup("camera", START, "lidar", START)
    assert unconnected == set(), "a pair that was found is waited for again"


def moving(seconds: float, x: float = 0.0, child: str = "base_link") -> TransformStamped:
    return stamped("odom", child, rigid_transform([x, 0, 0], [0, 0, 0, 1]), START + round(seconds * SECOND))


def x_at(buffer: tf2_ros.Buffer, seconds: float) -> float:
    at_ns = START + round(seconds * SECOND)
    return float(FrameTransforms(buffer).lookup("odom", at_ns, "base_link", at_ns)[0, 3])


def test_without_a_fixed_frame_a_moving_transform_is_that_of_the_datas_time() -> None:
    buffer = tf2_ros.Buffer()
    for tenth in range(11):
        buffer.set_transform(moving(tenth / 10, x=tenth), "test")
    assert x_at(buffer, 0.55) == pytest.approx(5.5)
    assert x_at(buffer, 1.15) == pytest.approx(10.0), "a little older than the data"
    with pytest.raises(TransformError, match=r"base_link -> odom at 1500000001.250000 s or at most 0.2 s before"):
        x_at(buffer, 1.25)
    with pytest.raises(TransformError, match="extrapolation into the past"):
        x_at(buffer, -0.05)


def test_a_time_before_the_epoch_is_a_missing_transform_and_no_crash() -> None:
    buffer = tf2_ros.Buffer()
    buffer.set_transform(stamped("map", "lidar", np.eye(4)), "test")
    for fixed_frame in ("", "map"):
        with pytest.raises(TransformError, match="no transform"):
            FrameTransforms(buffer, fixed_frame).lookup("map", -1, "lidar", -1)


class PresentBuffer(TransformBuffer):
    """A buffer whose present is set; in seconds."""

    def __init__(self, present: float = 0.0) -> None:
        super().__init__()
        self.present = present
        self.now_ns = lambda: START + round(self.present * SECOND)


def test_a_transform_from_the_future_is_refused_by_name_and_blocks_no_later_one() -> None:
    buffer = PresentBuffer()
    buffer.set_transform(moving(3600.0, x=99.0), "test")
    assert buffer.faults() == ["transforms of base_link are 3600.0 s ahead of the sensors and refused"]
    for tenth in range(5):
        buffer.present = tenth / 10
        buffer.set_transform(moving(tenth / 10, x=tenth), "test")
        buffer.set_transform(moving(3600.0 + tenth / 10, x=99.0), "wrong publisher")
        assert x_at(buffer, tenth / 10) == pytest.approx(tenth)


def test_transforms_dated_a_little_ahead_are_stored() -> None:
    buffer = PresentBuffer()
    buffer.set_transform(moving(1.0, x=7.0), "localisation")
    assert x_at(buffer, 1.0) == pytest.approx(7.0) and not buffer.faults()


@given(st.floats(1.5, 5000.0))
@settings(max_examples=20, deadline=None)
def test_without_a_known_present_transforms_that_stay_behind_replace_those_ahead(ahead: float) -> None:
    buffer = TransformBuffer()
    buffer.set_transform(moving(ahead, x=99.0), "test")
    for tenth in range(5):
        buffer.set_transform(moving(tenth / 10, x=tenth), "test")
    assert x_at(buffer, 0.35) == pytest.approx(3.5)
    assert buffer.faults() == ["the time of base_link went back: all moving transforms are forgotten"]


def test_frames_without_end_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "_MOST_FRAMES", 10)
    buffer = TransformBuffer()
    buffer.set_transform_static(stamped("base_link", "lidar", np.eye(4)), "test")
    buffer.set_transform(moving(0.0, child="c" * 2000), "test")
    assert "characters in a name are refused" in buffer.faults()[0]
    for index in range(100):
        buffer.set_transform(moving(0.0, child=f"{index}"), "test")
        buffer.set_transform_static(stamped("odom", f"static {index}", np.eye(4)), "test")
    assert buffer.lookup_transform("odom", "static 2", Time())
    with pytest.raises(tf2_ros.LookupException):
        buffer.lookup_transform("odom", "static 20", Time())
    buffer.set_transform(moving(0.0, x=3.0, child="0"), "test")
    assert buffer.faults() == ["transforms with more than 10 frames or 1000 characters in a name are refused"]


def test_one_transform_from_the_past_changes_nothing() -> None:
    buffer = PresentBuffer(10.0)
    for tenth in range(100, 105):
        buffer.set_transform(moving(tenth / 10, x=tenth), "test")
    buffer.set_transform(moving(8.0, x=99.0), "test")
    buffer.set_transform(moving(10.5, x=105.0), "test")
    assert x_at(buffer, 10.25) == pytest.approx(102.5) and not buffer.faults()


def test_after_clear_transforms_of_an_earlier_time_are_stored_at_once_and_static_ones_stay() -> None:
    buffer = PresentBuffer(10.0)
    buffer.set_transform_static(stamped("base_link", "lidar", np.eye(4)), "test")
    buffer.set_transform(moving(10.0, x=99.0), "test")
    buffer.clear()
    buffer.present = 7.0
    buffer.set_transform(moving(7.0, x=1.0), "test")
    at_ns = START + 7 * SECOND
    assert FrameTransforms(buffer).lookup("odom", at_ns, "lidar", at_ns)[0, 3] == pytest.approx(1.0)


@pytest.mark.parametrize("stamp_ns", [-5 * SECOND, 2**63, 2**70])
def test_times_that_rclpy_does_not_have_are_named(stamp_ns: int) -> None:
    with pytest.raises(TransformError, match="no transform"):
        FrameTransforms(tf2_ros.Buffer(), "odom").lookup("camera", stamp_ns, "lidar", stamp_ns)


@pytest.mark.parametrize("place", [np.inf, 1e9])
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_transform_to_nowhere_is_named(place: float) -> None:
    pose = np.eye(4)
    pose[0, 3] = place
    buffer = tf2_ros.Buffer()
    buffer.set_transform_static(stamped("lidar", "camera", pose), "test")
    with pytest.raises(TransformError, match=r"no transform: found translation \["):
        FrameTransforms(buffer).lookup("lidar", START, "camera", START)


@pytest.mark.parametrize("rotation", [(0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 2.0), (np.nan, 0.0, 0.0, 1.0)])
def test_tf_takes_no_rotation_that_is_none(rotation: tuple[float, float, float, float]) -> None:
    message = stamped("lidar", "camera", np.eye(4))
    turn = message.transform.rotation
    turn.x, turn.y, turn.z, turn.w = rotation
    buffer = tf2_ros.Buffer()
    buffer.set_transform_static(message, "test")
    with pytest.raises(TransformError, match="no transform"):
        FrameTransforms(buffer).lookup("lidar", START, "camera", START)
