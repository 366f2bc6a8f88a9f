# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Errors of the transform buffer, and transforms that it drops. Facts are those of ROS 2 Kilted's tf2."""

import pytest
from helpers.made_up_transforms import BufferCore, at, buffer_of, can_look_up, frames_of, stamped, tf2


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
    with pytest.raises(tf2.ExtrapolationException) as caught:
        buffer.lookup_transform_core("b", "a", at(moment))
    assert str(caught.value) == (
        f"Lookup would require extrapolation at time {moment:.6f}, but only time 2.000000 is in the buffer, "
        "when looking up transform from frame [a] to frame [b]"
    )
    assert can_look_up(buffer, "b", "a", at(2.0))


def test_unconnected_trees_and_unknown_frames_give_different_errors():
    buffer = buffer_of(stamped("a", "b", 1.0), stamped("x", "y", 1.0))
    for moment in (0.0, 1.0):
        with pytest.raises(tf2.ConnectivityException, match="connection between 'b' and 'y' because they are not part"):
            buffer.lookup_transform_core("b", "y", at(moment))
    with pytest.raises(
        tf2.LookupException, match=r'^"z" passed to lookupTransform argument source_frame does not exist\. $'
    ):
        buffer.lookup_transform_core("b", "z", at(1.0))
    with pytest.raises(tf2.LookupException, match='"z" passed to lookupTransform argument fixed_frame does not exist'):
        buffer.lookup_transform_full_core("b", at(1.0), "a", at(1.0), "z")


@pytest.mark.parametrize(("frame", "reason"), [("", "cannot be empty"), ("/b", "cannot start with a '/'")])
def test_empty_and_absolute_names_are_invalid_arguments(frame, reason):
    buffer = buffer_of(stamped("a", "b", 1.0))
    for target, source, place in ((frame, "a", "target_frame"), ("a", frame, "source_frame")):
        with pytest.raises(tf2.InvalidArgumentException, match=f"argument {place} - in tf2 frame_ids {reason}"):
            buffer.lookup_transform_core(target, source, at(1.0))
    with pytest.raises(tf2.InvalidArgumentException, match="argument fixed_frame"):
        buffer.lookup_transform_full_core("a", at(1.0), "b", at(1.0), frame)


def test_a_loop_is_a_lookup_error_unless_the_target_lies_on_it():
    buffer = buffer_of(stamped("a", "b", 1.0), stamped("b", "a", 1.0), stamped("x", "y", 1.0))
    for moment in (0.0, 1.0):
        with pytest.raises(tf2.LookupException, match=r"contains a loop\.\nFrame b exists with parent a"):
            buffer.lookup_transform_core("y", "a", at(moment))
    assert can_look_up(buffer, "b", "a", at(1.0))


def test_every_error_is_a_transform_exception():
    names = ["Connectivity", "Lookup", "Extrapolation", "InvalidArgument"]
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
    assert frames_of(buffer_of(broken, static=static)) == []


def test_a_leading_slash_is_dropped_from_stored_names():
    buffer = buffer_of(stamped("/a", "/b", 1.0))
    assert frames_of(buffer) == ["b", "a"]
    assert can_look_up(buffer, "a", "b", at(1.0))


def test_times_may_be_messages_or_rclpy_times_and_nothing_else():
    buffer = buffer_of(stamped("a", "b", 1.5))
    assert buffer.lookup_transform_core("a", "b", at(1.5)) == buffer.lookup_transform_core("a", "b", at(1.5).to_msg())
    with pytest.raises(TypeError, match="time must have sec and nanosec, or nanoseconds"):
        buffer.lookup_transform_core("a", "b", 1.5)
    with pytest.raises(TypeError, match="duration must have"):
        BufferCore(10)
    with pytest.raises(TypeError, match="a frame name must be str, not NoneType"):
        buffer.lookup_transform_core(None, "b", at(1.5))
