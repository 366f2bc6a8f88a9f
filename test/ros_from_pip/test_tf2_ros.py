# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""tf2 over DDS: a static broadcaster, a listener, and clocks that step back."""

import time

import pytest
from helpers.made_up_transforms import at, can_look_up
from helpers.tf2_nodes import PATIENCE, stamped, x_of  # skips this module where ROS is absent

# isort: split

from builtin_interfaces.msg import Time as TimeMessage
from rclpy.clock import ROSClock
from rclpy.parameter import Parameter
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from tf2_msgs.msg import TFMessage
from tf2_ros import Buffer, StaticTransformBroadcaster, TransformListener


def wait_for_listener(publisher):
    deadline = time.monotonic() + PATIENCE
    while publisher.get_subscription_count() == 0:
        assert time.monotonic() < deadline, "no listener discovered"
        time.sleep(0.01)


def test_moving_transforms_are_received_and_interpolated(talker, hearer):
    publisher = talker.node("talker").create_publisher(TFMessage, "/tf", 100)
    node = hearer.node("hearer")
    buffer = Buffer(node=node)
    listener = TransformListener(buffer, node)
    wait_for_listener(publisher)
    publisher.publish(TFMessage(transforms=[stamped("map", "base", 1.0, 10.0)]))
    publisher.publish(TFMessage(transforms=[stamped("map", "base", 2.0, 20.0), stamped("base", "lidar", 2.0)]))
    hearer.spin_until(lambda: can_look_up(buffer, "map", "lidar", at(2.0)))
    assert x_of(buffer.lookup_transform("map", "base", at(1.25))) == pytest.approx(12.5)
    assert x_of(buffer.lookup_transform_full("base", at(2.0), "base", at(1.0), "map")) == pytest.approx(-10.0)
    listener.unregister()
    assert not list(node.subscriptions)


def test_a_late_joiner_gets_every_static_transform_and_the_last_one_of_each_frame(talker, hearer):
    broadcaster = StaticTransformBroadcaster(talker.node("talker"))
    broadcaster.sendTransform((stamped("base", "lidar", 1.0, 1.0), stamped("base", "camera", 1.0, 2.0)))
    broadcaster.sendTransform(stamped("base", "lidar", 1.0, 3.0))
    node = hearer.node("hearer")
    buffer = Buffer()
    listener = TransformListener(buffer, node)
    hearer.spin_until(lambda: can_look_up(buffer, "lidar", "camera", at(0)))
    assert x_of(buffer.lookup_transform("base", "lidar", at(500.0))) == 3.0
    assert x_of(buffer.lookup_transform("lidar", "camera", at(0.1))) == -1.0
    listener.unregister()


def test_when_the_bag_starts_over_moving_transforms_are_forgotten(talker, hearer):
    clock = talker.node("talker").create_publisher(Clock, "/clock", 10)
    node = hearer.node("hearer", parameter_overrides=[Parameter("use_sim_time", value=True)])
    buffer = Buffer(node=node)

    def play_until(seconds):
        def has_come():
            clock.publish(Clock(clock=TimeMessage(sec=seconds)))
            return node.get_clock().now().nanoseconds == seconds * 10**9

        hearer.spin_until(has_come)

    play_until(100)
    buffer.set_transform(stamped("map", "base", 99.0), "bag")
    buffer.set_transform_static(stamped("base", "lidar", 0.0), "bag")
    play_until(105)
    assert can_look_up(buffer, "map", "lidar", at(99.0))
    play_until(3)
    assert not can_look_up(buffer, "map", "base", at(99.0))
    assert can_look_up(buffer, "base", "lidar", at(3.0))
    buffer.set_transform(stamped("map", "base", 2.0), "bag")
    assert can_look_up(buffer, "map", "lidar", at(2.0))


def test_a_small_step_back_of_the_clock_is_no_jump_but_another_time_source_is():
    class Node:
        clock = ROSClock()

        def get_clock(self):
            return self.clock

    clock = Node.clock
    buffer = Buffer(node=Node())
    buffer.set_transform(stamped("map", "base", 5.0), "test")
    clock._set_ros_time_is_active(True)
    assert not can_look_up(buffer, "map", "base", at(5.0))
    clock.set_ros_time_override(Time(seconds=10, clock_type=clock.clock_type))
    buffer.set_transform(stamped("map", "base", 10.0), "test")
    clock.set_ros_time_override(Time(seconds=9.5, clock_type=clock.clock_type))
    assert can_look_up(buffer, "map", "base", at(10.0))
    clock.set_ros_time_override(Time(seconds=8, clock_type=clock.clock_type))
    assert not can_look_up(buffer, "map", "base", at(10.0))
