# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The transform buffer: composition, interpolation and time. Facts are those of ROS 2 Kilted's tf2."""

import threading

import numpy as np
import pytest
from helpers.made_up_transforms import (
    IDENTITY,
    Time,
    at,
    buffer_of,
    can_look_up,
    frames_of,
    matrix,
    matrix_of,
    quaternion_of,
    stamped,
    tf2,
    vector_of,
)
from helpers.waiting import PATIENCE
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

time_cache = pytest.importorskip("tf2_py.time_cache")

few = settings(max_examples=25, deadline=None)

coordinates = st.tuples(*[st.floats(-100.0, 100.0)] * 3)
quaternions = (
    st.tuples(*[st.floats(-1.0, 1.0)] * 4)
    .filter(lambda q: np.linalg.norm(q) > 0.1)
    .map(lambda q: tuple(float(c) for c in np.array(q) / np.linalg.norm(q)))
)
poses = st.tuples(coordinates, quaternions)


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
def test_a_detour_through_any_tree_changes_nothing(nodes, data):
    links = [stamped(f"f{parent % (i + 1)}", f"f{i + 1}", 1.0, *pose) for i, (pose, parent) in enumerate(nodes)]
    buffer = buffer_of(*links)
    a, b, c = (data.draw(st.sampled_from(frames_of(buffer))) for _ in range(3))
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


def test_a_frame_relative_to_itself_is_identity_even_if_unknown():
    buffer = buffer_of(stamped("a", "b", 4.0))
    assert can_look_up(buffer, "nowhere", "nowhere", at(3.0))
    found = buffer.lookup_transform_core("nowhere", "nowhere", at(3.0))
    np.testing.assert_array_equal(matrix_of(found), np.eye(4))
    assert found.header.stamp == at(3.0).to_msg()
    assert buffer.lookup_transform_core("b", "b", at(0)).header.stamp == at(4.0).to_msg()


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


def test_time_zero_of_frames_over_one_two_and_three_degrees():
    links = [
        ("root", "top", 2.0),
        ("top", "a", 3.0),
        ("top", "b", 4.0),
        ("b", "c", 3.5),
        ("c", "d", 9.0),
        ("x", "e", 5.0),
    ]
    buffer = buffer_of(*(stamped(parent, child, t) for parent, child, last in links for t in (1.0, last)))

    def newest(target, source):
        return buffer.lookup_transform_core(target, source, at(0)).header.stamp

    assert newest("a", "root") == newest("root", "a") == at(2.0).to_msg()
    assert newest("a", "b") == newest("a", "c") == newest("d", "a") == newest("a", "a") == at(3.0).to_msg()
    assert newest("e", "x") == at(5.0).to_msg()


def test_transforms_between_static_frames_hold_at_any_time():
    buffer = buffer_of(stamped("a", "b", 5.0, (1.0, 2.0, 3.0)), static=True)
    for moment in (0.0, 1.0, 1e6):
        found = buffer.lookup_transform_core("a", "b", at(moment))
        assert found.header.stamp == at(moment).to_msg()


def test_data_above_the_common_parent_is_not_needed():
    buffer = buffer_of(
        *(stamped("base", child, t) for child in ("camera", "lidar") for t in (1.0, 3.0)), stamped("map", "base", 9.0)
    )
    assert can_look_up(buffer, "camera", "lidar", at(2.0))
    assert not can_look_up(buffer, "map", "lidar", at(2.0))


def test_samples_older_than_the_cache_time_are_forgotten():
    buffer = buffer_of(*(stamped("a", "b", t) for t in range(1, 15)), cache_time=3.0)
    # Pruning happens before the insertion: the newest stamp was 13 then.
    assert can_look_up(buffer, "a", "b", at(10.0))
    assert not can_look_up(buffer, "a", "b", at(9.9))


def test_ten_seconds_are_kept_by_default():
    buffer = buffer_of(*(stamped("a", "b", t) for t in (1.0, 2.0, 11.0, 12.0, 12.0)))
    assert can_look_up(buffer, "a", "b", at(2.0))
    assert not can_look_up(buffer, "a", "b", at(1.9))


def test_a_sample_older_than_the_cache_time_is_refused_but_its_frames_are_known():
    buffer = buffer_of(stamped("a", "b", 100.0), cache_time=3.0)
    buffer.set_transform(stamped("elsewhere", "b", 96.0), "late")
    assert can_look_up(buffer, "a", "b", at(100.0))
    assert not can_look_up(buffer, "a", "b", at(97.0))
    assert "elsewhere" in frames_of(buffer)


def test_nothing_is_interpolated_across_a_change_of_parent():
    buffer = buffer_of(stamped("left", "tool", 1.0, (1.0, 0.0, 0.0)), stamped("right", "tool", 2.0, (9.0, 0.0, 0.0)))
    assert vector_of(buffer.lookup_transform_core("left", "tool", at(1.9)))[0] == 1.0
    assert not can_look_up(buffer, "right", "tool", at(1.9))
    assert vector_of(buffer.lookup_transform_core("right", "tool", at(2.0)))[0] == 9.0


def sample(stamp, parent):
    return time_cache.Sample(stamp, parent, IDENTITY, (0.0, 0.0, 0.0))


def test_samples_of_one_time_are_kept_in_order_of_arrival_and_duplicates_once():
    cache = time_cache.TimeCache(10)
    samples = [sample(0, "a"), sample(10, "b"), sample(5, "c"), sample(8, "d"), sample(8, "e")]
    for _ in range(2):
        for item in samples:
            assert cache.insert(item)
    assert cache._stamps == [0, 5, 8, 8, 10]
    # The newest arrival rules among equal stamps, except at the very oldest one.
    assert cache.link_at(8).parent == "e"
    assert cache.link_at(0).parent == "b"
    cache.insert(sample(15, "f"))
    assert not cache.insert(sample(4, "late"))
    assert cache._stamps == [5, 8, 8, 10, 15] and cache.link_at(5).parent == "c"


# Static and moving, clearing


def test_clear_forgets_what_moves_and_keeps_what_is_static():
    buffer = buffer_of(stamped("map", "base", 1.0))
    buffer.set_transform_static(stamped("base", "lidar", 0.0), "test")
    buffer.clear()
    assert can_look_up(buffer, "base", "lidar", at(1.0))
    assert not can_look_up(buffer, "map", "base", at(1.0))
    with pytest.raises(tf2.ConnectivityException):
        buffer.lookup_transform_core("map", "base", at(0))
    with pytest.raises(tf2.ExtrapolationException, match=r"but only time 0\.000000 is in the buffer"):
        buffer.lookup_transform_core("map", "base", at(1.0))
    assert frames_of(buffer) == ["base", "map", "lidar"]
    buffer.set_transform(stamped("map", "base", 0.5), "test")
    assert can_look_up(buffer, "map", "lidar", at(0.5))


def test_a_frame_becomes_static_or_moving_by_its_last_transform():
    buffer = buffer_of(stamped("a", "b", 1.0))
    buffer.set_transform_static(stamped("a", "b", 1.0, (5.0, 0.0, 0.0)), "test")
    assert vector_of(buffer.lookup_transform_core("a", "b", at(77.0)))[0] == 5.0
    buffer.set_transform(stamped("a", "b", 2.0), "test")
    assert not can_look_up(buffer, "a", "b", at(77.0))


# Threads


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

    threads = [threading.Thread(target=work, daemon=True) for work in (write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert failures == [] and not any(thread.is_alive() for thread in threads)
    assert vector_of(buffer.lookup_transform_core("a", "b", at(0)))[0] == pytest.approx(399 * 0.05)
