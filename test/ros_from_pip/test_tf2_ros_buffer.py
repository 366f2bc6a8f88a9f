"""The buffer in a node: clocks that step back, lookups that wait, and the types that it transforms."""

import threading
import time

import pytest
from helpers.made_up_transforms import at
from helpers.tf2_nodes import PATIENCE, stamped, x_of  # skips this module where ROS is absent

# isort: split

from geometry_msgs.msg import PointStamped
from rclpy.clock import ROSClock
from rclpy.duration import Duration
from rclpy.time import Time
from tf2_ros import (
    Buffer,
    BufferInterface,
    ConvertRegistration,
    ExtrapolationException,
    NotImplementedException,
    Stamped,
    TransformRegistration,
    TypeException,
    convert,
)


def test_a_small_step_back_of_the_clock_is_no_jump_but_another_time_source_is():
    class Node:
        clock = ROSClock()

        def create_service(self, *_):
            return None

        def get_clock(self):
            return self.clock

    clock = Node.clock
    buffer = Buffer(node=Node())
    buffer.set_transform(stamped("map", "base", 5.0), "test")
    clock._set_ros_time_is_active(True)
    assert not buffer.can_transform("map", "base", at(5.0))
    clock.set_ros_time_override(Time(seconds=10, clock_type=clock.clock_type))
    buffer.set_transform(stamped("map", "base", 10.0), "test")
    clock.set_ros_time_override(Time(seconds=9.5, clock_type=clock.clock_type))
    assert buffer.can_transform("map", "base", at(10.0))
    clock.set_ros_time_override(Time(seconds=8, clock_type=clock.clock_type))
    assert not buffer.can_transform("map", "base", at(10.0))


def test_a_lookup_that_nobody_answers_fails_after_its_timeout_and_says_why():
    buffer = Buffer()
    buffer.set_transform(stamped("map", "base", 1.0), "test")
    start = time.monotonic()
    with pytest.raises(ExtrapolationException, match=r"but only time 1\.000000 is in the buffer"):
        buffer.lookup_transform("map", "base", at(2.0), Duration(seconds=0.1))
    assert time.monotonic() - start >= 0.1
    possible, reason = buffer.can_transform_full(
        "map", at(1.0), "base", at(2.0), "map", Duration(seconds=0.01), return_debug_tuple=True
    )
    assert not possible
    assert "Lookup would require extrapolation" in reason


def test_a_waiting_full_lookup_returns_when_the_data_comes():
    buffer = Buffer()
    sender = threading.Timer(0.05, buffer.set_transform, [stamped("map", "base", 1.0, 7.0), "test"])
    sender.start()
    found = buffer.lookup_transform_full("map", at(1.0), "base", at(1.0), "map", Duration(seconds=PATIENCE))
    sender.join()
    assert x_of(found) == 7.0


def test_futures_resolve_with_the_transform_and_are_then_forgotten():
    buffer = Buffer()
    simple = buffer.wait_for_transform_async("map", "base", at(1.5))
    full = buffer.wait_for_transform_full_async("base", at(1.0), "base", at(2.0), "map")
    cancelled = buffer.wait_for_transform_async("map", "base", at(1.0))
    cancelled.cancel()
    buffer.set_transform(stamped("map", "base", 1.0, 1.0), "test")
    assert not simple.done()
    buffer.set_transform(stamped("map", "base", 2.0, 2.0), "test")
    assert x_of(simple.result()) == 1.5
    assert x_of(full.result()) == 1.0
    assert cancelled.cancelled()
    assert buffer._new_data_callbacks == []
    assert buffer.wait_for_transform_async("map", "base", at(1.5)).done()


def test_an_awaited_lookup_goes_on_when_the_data_comes():
    buffer = Buffer()
    lookup = buffer.lookup_transform_async("map", "base", at(1.0))
    assert lookup.send(None) is None
    buffer.set_transform(stamped("map", "base", 1.0, 5.0), "test")
    with pytest.raises(StopIteration) as finished:
        lookup.send(None)
    assert x_of(finished.value.value) == 5.0


# Types that can be transformed and converted


class Position:
    """A type of our own, with a header like a stamped message."""

    def __init__(self, x):
        self.x = x


def test_registered_types_are_transformed_and_converted():
    def shift(position, transform):
        return Stamped(Position(position.x + x_of(transform)), transform.header.stamp, transform.header.frame_id)

    def to_point(position):
        message = PointStamped(header=position.header)
        message.point.x = position.x
        return message

    TransformRegistration().add(Position, shift)
    ConvertRegistration().add_to_msg(Position, to_point)
    ConvertRegistration().add_from_msg(PointStamped, lambda message: message)
    buffer = Buffer()
    buffer.set_transform(stamped("map", "base", 1.0, 1.0), "test")
    buffer.set_transform(stamped("map", "base", 2.0, 4.0), "test")
    position = Stamped(Position(10.0), at(1.0).to_msg(), "base")
    assert buffer.transform(position, "map").x == 11.0
    assert buffer.transform_full(position, "base", at(2.0), "map").x == 7.0
    point = buffer.transform(position, "map", new_type=PointStamped)
    assert (point.point.x, point.header.frame_id) == (11.0, "map")
    copy = convert(position, Position)
    assert copy is not position
    assert copy.x == 10.0
    ConvertRegistration().add_convert((Position, float), lambda position: position.x)
    assert convert(position, float) == 10.0


def test_unknown_types_and_missing_methods_have_their_own_exceptions():
    with pytest.raises(TypeException, match="Type <class 'dict'> is not loaded or supported"):
        Buffer().transform({}, "map")
    with pytest.raises(TypeException):
        convert({}, int)
    interface = BufferInterface()
    with pytest.raises(NotImplementedException):
        interface.lookup_transform("a", "b", at(0))
    with pytest.raises(NotImplementedException):
        interface.can_transform_full("a", at(0), "b", at(0), "c")
