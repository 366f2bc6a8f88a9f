"""The transform buffer: composition, interpolation, time, errors. Facts are those of ROS 2 Kilted's tf2."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

pytest.importorskip("rclpy", reason="the transform buffer speaks ROS messages; run in the ROS environment")
geometry_msgs = pytest.importorskip("geometry_msgs.msg")
time_module = pytest.importorskip("rclpy.time")
duration_module = pytest.importorskip("rclpy.duration")
sys.path.insert(0, str(Path(__file__).parents[2] / "ros_from_pip" / "src" / "tf2_py"))
tf2 = pytest.importorskip("tf2_py", reason="needs NumPy, SciPy and transforms3d")
time_cache = pytest.importorskip("tf2_py.time_cache")

BufferCore, Time, Duration = tf2.BufferCore, time_module.Time, duration_module.Duration
IDENTITY = (0.0, 0.0, 0.0, 1.0)
few = settings(max_examples=25, deadline=None)

coordinates = st.tuples(*[st.floats(-100.0, 100.0)] * 3)
quaternions = (
    st.tuples(*[st.floats(-1.0, 1.0)] * 4)
    .filter(lambda q: np.linalg.norm(q) > 0.1)
    .map(lambda q: tuple(float(c) for c in np.array(q) / np.linalg.norm(q)))
)
poses = st.tuples(coordinates, quaternions)


def stamped(parent, child, seconds, translation=(0.0, 0.0, 0.0), rotation=IDENTITY):
    message = geometry_msgs.TransformStamped()
    message.header.frame_id, message.child_frame_id = parent, child
    message.header.stamp = Time(nanoseconds=round(seconds * 1e9)).to_msg()
    vector, quaternion = message.transform.translation, message.transform.rotation
    vector.x, vector.y, vector.z = translation
    quaternion.x, quaternion.y, quaternion.z, quaternion.w = rotation
    return message


def matrix(translation, rotation):
    result = np.eye(4)
    result[:3, :3] = Rotation.from_quat(rotation).as_matrix()
    result[:3, 3] = translation
    return result


def vector_of(message):
    vector = message.transform.translation
    return np.array([vector.x, vector.y, vector.z])


def quaternion_of(message):
    rotation = message.transform.rotation
    return np.array([rotation.x, rotation.y, rotation.z, rotation.w])


def matrix_of(message):
    return matrix(vector_of(message), quaternion_of(message))


def at(seconds):
    return Time(nanoseconds=round(seconds * 1e9))


def buffer_of(*messages, cache_time=None, static=False):
    buffer = BufferCore() if cache_time is None else BufferCore(Duration(seconds=cache_time))
    for message in messages:
        (buffer.set_transform_static if static else buffer.set_transform)(message, "test")
    return buffer


# Composition


@few
@given(st.lists(poses, min_size=1, max_size=6), st.booleans())
def test_a_chain_is_the_product_of_its_links(chain, static):
    links = [stamped(f"f{i}", f"f{i + 1}", 1.0, *pose) for i, pose in enumerate(chain)]
    found = buffer_of(*links, static=static).lookup_transform_core("f0", f"f{len(chain)}", at(1.0))
    expected = np.linalg.multi_dot([np.eye(4), *(matrix(*pose) for pose in chain), np.eye(4)])
    np.testing.assert_allclose(matrix_of(found), expected, atol=1e-9)
    assert (found.header.frame_id, found.child_frame_id) == ("f0", f"f{len(chain)}")


@few
@given(st.lists(st.tuples(poses, st.integers(0, 100)), min_size=3, max_size=8), st.data())
def test_in_any_tree_a_detour_and_the_way_back_change_nothing(nodes, data):
    links = [stamped(f"f{parent % (i + 1)}", f"f{i + 1}", 1.0, *pose) for i, (pose, parent) in enumerate(nodes)]
    buffer = buffer_of(*links)
    a, b, c = (data.draw(st.sampled_from(buffer._getFrameStrings())) for _ in range(3))
    a_from_b = matrix_of(buffer.lookup_transform_core(a, b, at(1.0)))
    b_from_a = matrix_of(buffer.lookup_transform_core(b, a, at(1.0)))
    b_from_c = matrix_of(buffer.lookup_transform_core(b, c, at(1.0)))
    a_from_c = matrix_of(buffer.lookup_transform_core(a, c, at(1.0)))
    np.testing.assert_allclose(a_from_b @ b_from_a, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(a_from_b @ b_from_c, a_from_c, atol=1e-9)


@few
@given(poses, poses, poses, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_full_lookup_follows_the_vehicle_between_two_times(start, end, mounting, source_time, target_time):
    buffer = buffer_of(stamped("map", "base", 10.0, *start), stamped("map", "base", 11.0, *end))
    buffer.set_transform_static(stamped("base", "camera", 0.0, *mounting), "test")

    def map_from_base(fraction):
        first, second = Rotation.from_quat(start[1]), Rotation.from_quat(end[1])
        rotation = first * Rotation.from_rotvec(fraction * (first.inv() * second).as_rotvec())
        return matrix((1 - fraction) * np.array(start[0]) + fraction * np.array(end[0]), rotation.as_quat())

    found = buffer.lookup_transform_full_core("base", at(10 + target_time), "camera", at(10 + source_time), "map")
    expected = np.linalg.inv(map_from_base(target_time)) @ map_from_base(source_time) @ matrix(*mounting)
    # Stamps are whole nanoseconds, so a fraction is met to 1e-9 of the way.
    np.testing.assert_allclose(matrix_of(found), expected, atol=1e-5)
    assert found.header.stamp == at(10 + target_time).to_msg()


@few
@given(quaternions)
def test_of_the_two_quaternions_of_a_rotation_tf2s_is_returned(rotation):
    x, y, z, w = quaternion_of(
        buffer_of(stamped("a", "b", 1.0, rotation=rotation)).lookup_transform_core("a", "b", at(1))
    )
    assert abs(np.dot([x, y, z, w], rotation)) == pytest.approx(1.0)
    assert w > 0 if abs(w) > 0.5 else max((x, y, z), key=abs) > 0


def test_a_quaternion_that_is_almost_normalised_comes_back_normalised():
    found = buffer_of(stamped("a", "b", 1.0, rotation=(0.0, 0.0, 0.0, 1.004))).lookup_transform_core("a", "b", at(1.0))
    assert np.linalg.norm(quaternion_of(found)) == pytest.approx(1.0, abs=1e-12)


# Time


@few
@given(poses, poses, st.floats(0.0, 1.0))
def test_interpolation_stays_on_the_line_and_on_the_geodesic(start, end, fraction):
    buffer = buffer_of(stamped("a", "b", 5.0, *start), stamped("a", "b", 7.0, *end))
    found = buffer.lookup_transform_core("a", "b", at(5.0 + 2.0 * fraction))
    np.testing.assert_allclose(
        vector_of(found), (1 - fraction) * np.array(start[0]) + fraction * np.array(end[0]), atol=1e-5
    )
    first, middle, last = (Rotation.from_quat(q) for q in (start[1], quaternion_of(found), end[1]))
    whole_turn = (first.inv() * last).magnitude()
    assert (first.inv() * middle).magnitude() == pytest.approx(fraction * whole_turn, abs=1e-6)
    assert (middle.inv() * last).magnitude() == pytest.approx((1 - fraction) * whole_turn, abs=1e-6)


@few
@given(st.permutations([1.0, 2.0, 3.5, 4.0, 7.0]), st.floats(1.0, 7.0))
def test_the_order_of_arrival_does_not_matter(arrival, moment):
    buffer = buffer_of(*(stamped("a", "b", stamp, (stamp, 0.0, 0.0)) for stamp in arrival))
    assert vector_of(buffer.lookup_transform_core("a", "b", at(moment)))[0] == pytest.approx(moment, abs=1e-6)


def test_time_zero_is_the_newest_time_that_all_moving_frames_have_reached():
    buffer = buffer_of(
        *(stamped("odom", "base", t, (t, 0.0, 0.0)) for t in (1.0, 2.0, 3.0)),
        *(stamped("map", "odom", t) for t in (1.0, 2.5)),
    )
    buffer.set_transform_static(stamped("base", "lidar", 99.0, (0.0, 0.0, 2.0)), "test")
    found = buffer.lookup_transform_core("map", "lidar", at(0))
    assert found.header.stamp == at(2.5).to_msg()
    np.testing.assert_allclose(vector_of(found), [2.5, 0.0, 2.0])


def test_latest_common_time_over_one_two_and_three_degrees():
    buffer = buffer_of(
        stamped("root", "top", 2.0),
        stamped("top", "a", 3.0),
        stamped("top", "b", 4.0),
        stamped("b", "c", 3.5),
        stamped("c", "d", 9.0),
        stamped("other", "e", 5.0),
    )
    common = buffer.get_latest_common_time
    assert common("a", "root") == common("root", "a") == at(2.0)
    assert common("a", "b") == common("a", "c") == common("d", "a") == at(3.0)
    assert common("e", "other") == at(5.0)
    assert common("a", "a") == at(3.0)
    with pytest.raises(tf2.TransformException, match="two or more unconnected trees"):
        common("a", "e")
    with pytest.raises(tf2.LookupException, match='"nowhere" passed to get_latest_common_time does not exist'):
        common("a", "nowhere")


def test_between_static_frames_the_latest_common_time_is_zero_and_any_time_will_do():
    buffer = buffer_of(stamped("a", "b", 5.0, (1.0, 2.0, 3.0)), static=True)
    assert buffer.get_latest_common_time("a", "b") == at(0)
    for moment in (0.0, 1.0, 1e6):
        found = buffer.lookup_transform_core("a", "b", at(moment))
        assert found.header.stamp == at(moment).to_msg()


def test_samples_older_than_the_cache_time_are_forgotten():
    buffer = buffer_of(*(stamped("a", "b", t) for t in range(1, 15)), cache_time=3.0)
    # Pruning happens before the insertion: the newest stamp was 13 then.
    assert buffer.can_transform_core("a", "b", at(10.0))[0]
    assert not buffer.can_transform_core("a", "b", at(9.9))[0]


def test_ten_seconds_are_kept_by_default():
    buffer = buffer_of(*(stamped("a", "b", t) for t in (1.0, 2.0, 11.0, 12.0, 12.0)))
    assert buffer.can_transform_core("a", "b", at(2.0))[0]
    assert not buffer.can_transform_core("a", "b", at(1.9))[0]


def test_a_sample_older_than_the_cache_time_is_refused_but_its_frames_are_known():
    buffer = buffer_of(stamped("a", "b", 100.0), cache_time=3.0)
    buffer.set_transform(stamped("elsewhere", "b", 96.0), "late")
    assert buffer.can_transform_core("a", "b", at(100.0))[0]
    assert not buffer.can_transform_core("a", "b", at(97.0))[0]
    assert buffer._frameExists("elsewhere")
    assert "late" not in buffer.all_frames_as_yaml()


def test_nothing_is_interpolated_across_a_change_of_parent():
    buffer = buffer_of(stamped("left", "tool", 1.0, (1.0, 0.0, 0.0)), stamped("right", "tool", 2.0, (9.0, 0.0, 0.0)))
    assert vector_of(buffer.lookup_transform_core("left", "tool", at(1.9)))[0] == 1.0
    assert not buffer.can_transform_core("right", "tool", at(1.9))[0]
    assert vector_of(buffer.lookup_transform_core("right", "tool", at(2.0)))[0] == 9.0


def sample(stamp, parent):
    return time_cache.Sample(stamp, parent, IDENTITY, (0.0, 0.0, 0.0))


def test_samples_of_one_time_are_kept_in_order_of_arrival_and_duplicates_once():
    cache = time_cache.TimeCache(10)
    samples = [sample(0, "a"), sample(10, "b"), sample(5, "c"), sample(8, "d"), sample(8, "e")]
    for _ in range(2):
        for item in samples:
            assert cache.insert(item)
    assert len(cache) == 5
    assert cache.newest_stamp - cache.oldest_stamp == 10
    # The newest arrival rules among equal stamps, except at the very oldest one.
    assert cache.link_at(8).parent == "e"
    assert cache.link_at(0).parent == "b"
    cache.insert(sample(15, "f"))
    assert not cache.insert(sample(4, "late"))
    assert (cache.oldest_stamp, cache.link_at(5).parent, len(cache)) == (5, "c", 5)


# Errors


def test_extrapolation_names_the_requested_and_the_stored_time():
    buffer = buffer_of(stamped("a", "b", 2.0), stamped("a", "b", 3.0))
    ending = r", when looking up transform from frame \[b\] to frame \[a\]$"
    with pytest.raises(
        tf2.ExtrapolationException,
        match="^Lookup would require extrapolation into the past.  Requested time 1.000000 but the earliest data is at "
        "time 2.000000" + ending,
    ):
        buffer.lookup_transform_core("a", "b", at(1.0))
    with pytest.raises(
        tf2.ExtrapolationException,
        match="^Lookup would require extrapolation into the future.  Requested time 4.000000 but the latest data is at "
        "time 3.000000" + ending,
    ):
        buffer.lookup_transform_core("a", "b", at(4.0))


@pytest.mark.parametrize("moment", [1.0, 3.0])
def test_from_one_sample_nothing_is_extrapolated(moment):
    buffer = buffer_of(stamped("a", "b", 2.0))
    possible, reason = buffer.can_transform_core("b", "a", at(moment))
    assert not possible
    assert reason == (
        f"Lookup would require extrapolation at time {moment:.6f}, but only time 2.000000 is in the buffer, "
        "when looking up transform from frame [a] to frame [b]"
    )
    assert buffer.can_transform_core("b", "a", at(2.0)) == (True, "")


def test_data_missing_above_the_common_parent_is_no_obstacle():
    buffer = buffer_of(
        *(stamped("base", child, t) for child in ("camera", "lidar") for t in (1.0, 3.0)), stamped("map", "base", 9.0)
    )
    assert buffer.can_transform_core("camera", "lidar", at(2.0)) == (True, "")
    assert not buffer.can_transform_core("map", "lidar", at(2.0))[0]


def test_unconnected_trees_are_told_apart_from_unknown_frames():
    buffer = buffer_of(stamped("a", "b", 1.0), stamped("x", "y", 1.0))
    for moment in (0.0, 1.0):
        with pytest.raises(tf2.ConnectivityException, match="connection between 'b' and 'y' because they are not part"):
            buffer.lookup_transform_core("b", "y", at(moment))
    with pytest.raises(
        tf2.LookupException, match=r'^"z" passed to lookupTransform argument source_frame does not exist\. $'
    ):
        buffer.lookup_transform_core("b", "z", at(1.0))
    assert buffer.can_transform_core("b", "z", at(1.0)) == (
        False,
        'Invalid frame ID "z" passed to canTransform argument source_frame - frame does not exist',
    )
    assert buffer.can_transform_full_core("b", at(1.0), "a", at(1.0), "z") == (
        False,
        'Invalid frame ID "z" passed to canTransform argument fixed_frame - frame does not exist',
    )


@pytest.mark.parametrize(("frame", "reason"), [("", "cannot be empty"), ("/b", "cannot start with a '/'")])
def test_empty_and_absolute_names_are_invalid_arguments(frame, reason):
    buffer = buffer_of(stamped("a", "b", 1.0))
    for target, source, place in ((frame, "a", "target_frame"), ("a", frame, "source_frame")):
        with pytest.raises(tf2.InvalidArgumentException, match=f"argument {place} - in tf2 frame_ids {reason}"):
            buffer.lookup_transform_core(target, source, at(1.0))
        possible, text = buffer.can_transform_core(target, source, at(1.0))
        assert not possible
        assert reason in text
    with pytest.raises(tf2.InvalidArgumentException, match="argument fixed_frame"):
        buffer.lookup_transform_full_core("a", at(1.0), "b", at(1.0), frame)


def test_a_loop_is_a_lookup_error_unless_the_target_lies_on_it():
    buffer = buffer_of(stamped("a", "b", 1.0), stamped("b", "a", 1.0), stamped("x", "y", 1.0))
    for moment in (0.0, 1.0):
        with pytest.raises(tf2.LookupException, match=r"contains a loop\.\nFrame b exists with parent a"):
            buffer.lookup_transform_core("y", "a", at(moment))
    assert buffer.can_transform_core("b", "a", at(1.0))[0]


def test_a_frame_relative_to_itself_is_identity_even_if_unknown():
    buffer = buffer_of(stamped("a", "b", 4.0))
    assert buffer.can_transform_core("nowhere", "nowhere", at(3.0)) == (True, "")
    found = buffer.lookup_transform_core("nowhere", "nowhere", at(3.0))
    np.testing.assert_array_equal(matrix_of(found), np.eye(4))
    assert found.header.stamp == at(3.0).to_msg()
    assert buffer.lookup_transform_core("b", "b", at(0)).header.stamp == at(4.0).to_msg()


def test_every_error_is_a_transform_exception():
    names = ["Connectivity", "Lookup", "Extrapolation", "InvalidArgument", "Timeout"]
    assert all(issubclass(getattr(tf2, f"{name}Exception"), tf2.TransformException) for name in names)


@pytest.mark.parametrize(
    "broken",
    [
        stamped("same", "same", 1.0),
        stamped("/same", "same", 1.0),
        stamped("a", "", 1.0),
        stamped("a", "/", 1.0),
        stamped("", "b", 1.0),
        stamped("/", "b", 1.0),
        stamped("a", "b", 1.0, (float("nan"), 0.0, 0.0)),
        stamped("a", "b", 1.0, rotation=(0.0, 0.0, 0.0, 0.0)),
        stamped("a", "b", 1.0, rotation=(0.0, 0.0, 0.0, 1.006)),
        stamped("a", "b", 1.0, rotation=(0.0, float("nan"), 0.0, 1.0)),
    ],
)
@pytest.mark.parametrize("static", [False, True])
def test_malformed_transforms_are_dropped(broken, static):
    assert buffer_of(broken, static=static)._getFrameStrings() == []


def test_a_leading_slash_is_dropped_from_stored_names():
    buffer = buffer_of(stamped("/a", "/b", 1.0))
    assert buffer._getFrameStrings() == ["b", "a"]
    assert buffer.can_transform_core("a", "b", at(1.0))[0]


def test_times_may_be_messages_or_rclpy_times_and_nothing_else():
    buffer = buffer_of(stamped("a", "b", 1.5))
    assert buffer.lookup_transform_core("a", "b", at(1.5)) == buffer.lookup_transform_core("a", "b", at(1.5).to_msg())
    with pytest.raises(TypeError, match="time must have sec and nanosec, or nanoseconds"):
        buffer.lookup_transform_core("a", "b", 1.5)
    with pytest.raises(TypeError, match="duration must have"):
        BufferCore(10)
    with pytest.raises(TypeError, match="a frame name must be str, not NoneType"):
        buffer.lookup_transform_core(None, "b", at(1.5))


# Static and moving, clearing


def test_clear_forgets_what_moves_and_keeps_what_is_static():
    buffer = buffer_of(stamped("map", "base", 1.0))
    buffer.set_transform_static(stamped("base", "lidar", 0.0), "test")
    buffer.clear()
    assert buffer.can_transform_core("base", "lidar", at(1.0))[0]
    assert not buffer.can_transform_core("map", "base", at(1.0))[0]
    with pytest.raises(tf2.ConnectivityException):
        buffer.lookup_transform_core("map", "base", at(0))
    with pytest.raises(tf2.ExtrapolationException, match=r"but only time 0\.000000 is in the buffer"):
        buffer.lookup_transform_core("map", "base", at(1.0))
    assert buffer._getFrameStrings() == ["base", "map", "lidar"]
    buffer.set_transform(stamped("map", "base", 0.5), "test")
    assert buffer.can_transform_core("map", "lidar", at(0.5))[0]


def test_a_frame_becomes_static_or_moving_by_its_last_transform():
    buffer = buffer_of(stamped("a", "b", 1.0))
    buffer.set_transform_static(stamped("a", "b", 1.0, (5.0, 0.0, 0.0)), "test")
    assert vector_of(buffer.lookup_transform_core("a", "b", at(77.0)))[0] == 5.0
    buffer.set_transform(stamped("a", "b", 2.0), "test")
    assert not buffer.can_transform_core("a", "b", at(77.0))[0]


# Descriptions and velocity


def test_the_yaml_report_tells_parent_broadcaster_rate_and_span():
    buffer = buffer_of(*(stamped("map", "base", t) for t in (1.0, 1.5, 2.0)))
    buffer.set_transform_static(stamped("base", "lidar", 0.0), "mount")
    report = yaml.safe_load(buffer.all_frames_as_yaml())
    assert report["base"] == {
        "parent": "map",
        "broadcaster": "test",
        "rate": 3.0,
        "most_recent_transform": 2.0,
        "oldest_transform": 1.0,
        "buffer_length": 1.0,
    }
    assert report["lidar"]["broadcaster"] == "mount"
    assert report["lidar"]["rate"] == 10000.0
    assert buffer.all_frames_as_string() == (
        "Frame base exists with parent map.\nFrame lidar exists with parent base.\n"
    )
    assert BufferCore().all_frames_as_yaml() == "[]"


def test_the_graph_has_an_edge_from_parent_to_child():
    buffer = buffer_of(stamped("map", "base", 1.0))
    assert '"map" -> "base"[label="Broadcaster: test\\nAverage rate: 10000.000 Hz' in buffer._allFramesAsDot()
    assert "( 2.000 sec old)" in buffer._allFramesAsDot(at(3.0))
    assert "Recorded at time: 3.000000" in buffer._allFramesAsDot(at(3.0))


def test_the_chain_names_every_frame_on_the_way():
    buffer = buffer_of(*(stamped(p, c, 1.0) for p, c in (("map", "odom"), ("odom", "base"), ("base", "lidar"))))
    assert buffer._chain("map", at(1.0), "lidar", at(1.0), "odom") == ["lidar", "base", "odom", "map"]
    assert buffer._chain("lidar", at(1.0), "map", at(1.0), "map") == ["map", "odom", "base", "lidar"]


def test_velocity_of_a_straight_and_of_a_turning_frame():
    buffer = BufferCore()
    for t in range(9):
        turn = Rotation.from_rotvec([0.0, 0.0, 0.2 * t]).as_quat()
        buffer.set_transform(stamped("map", "straight", t, (3.0 * t, -t, 0.0)), "test")
        buffer.set_transform(stamped("map", "turning", t, rotation=tuple(turn)), "test")
    linear, angular = buffer.lookupVelocityCore("straight", "map", at(4.0), Duration(seconds=2.0))
    np.testing.assert_allclose((*linear, *angular), (3.0, -1.0, 0.0, 0.0, 0.0, 0.0), atol=1e-9)
    linear, angular = buffer.lookupVelocityCore("turning", "map", at(4.0), Duration(seconds=2.0))
    np.testing.assert_allclose((*linear, *angular), (0.0, 0.0, 0.0, 0.0, 0.0, 0.2), atol=1e-9)


def test_readers_and_writers_may_share_a_buffer():
    buffer = buffer_of(stamped("a", "b", 0.001, (0.001, 0.0, 0.0)))
    failures = []

    def write():
        for i in range(1, 400):
            buffer.set_transform(stamped("a", "b", i * 0.05, (i * 0.05, 0.0, 0.0)), "writer")

    def read():
        for _ in range(100):
            found = buffer.lookup_transform_core("a", "b", at(0))
            if abs(vector_of(found)[0] - Time.from_msg(found.header.stamp).nanoseconds * 1e-9) > 1e-9:
                failures.append(found)

    threads = [threading.Thread(target=write), threading.Thread(target=read), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert vector_of(buffer.lookup_transform_core("a", "b", at(0)))[0] == pytest.approx(399 * 0.05)
