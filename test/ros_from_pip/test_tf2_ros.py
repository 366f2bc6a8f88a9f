"""tf2 over DDS: broadcasters, listeners, the service that tells the tree, and a clock that starts over."""

import threading
import time

import pytest
import yaml
from helpers.made_up_transforms import at
from helpers.tf2_nodes import PATIENCE, stamped, x_of  # skips this module where ROS is absent

# isort: split

import rclpy
from builtin_interfaces.msg import Time as TimeMessage
from rclpy.duration import Duration
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from tf2_msgs.srv import FrameGraph
from tf2_ros import (
    Buffer,
    StaticTransformBroadcaster,
    StaticTransformListener,
    TransformBroadcaster,
    TransformListener,
)


def wait_for_listener(broadcaster):
    deadline = time.monotonic() + PATIENCE
    while broadcaster.pub_tf.get_subscription_count() == 0:
        assert time.monotonic() < deadline, "no listener discovered"
        time.sleep(0.01)


def test_what_is_broadcast_is_heard_and_interpolated(talker, hearer):
    broadcaster = TransformBroadcaster(talker.node("talker"))
    node = hearer.node("hearer")
    buffer = Buffer(node=node)
    listener = TransformListener(buffer, node)
    wait_for_listener(broadcaster)
    broadcaster.sendTransform(stamped("map", "base", 1.0, 10.0))
    broadcaster.sendTransform([stamped("map", "base", 2.0, 20.0), stamped("base", "lidar", 2.0)])
    hearer.spin_until(lambda: buffer.can_transform("map", "lidar", at(2.0)))
    assert x_of(buffer.lookup_transform("map", "base", at(1.25))) == pytest.approx(12.5)
    listener.unregister()


def test_a_late_joiner_gets_every_static_transform_and_the_last_word_on_each(talker, hearer):
    broadcaster = StaticTransformBroadcaster(talker.node("talker"))
    broadcaster.sendTransform((stamped("base", "lidar", 1.0, 1.0), stamped("base", "camera", 1.0, 2.0)))
    broadcaster.sendTransform(stamped("base", "lidar", 1.0, 3.0))
    node = hearer.node("hearer")
    buffer = Buffer()
    listener = TransformListener(buffer, node)
    hearer.spin_until(lambda: buffer.can_transform("lidar", "camera", at(0)))
    assert x_of(buffer.lookup_transform("base", "lidar", at(500.0))) == 3.0
    assert x_of(buffer.lookup_transform("lidar", "camera", at(0.1))) == -1.0
    listener.unregister()


def test_a_static_listener_leaves_out_what_moves(talker, hearer):
    node = talker.node("talker")
    moving, static = TransformBroadcaster(node), StaticTransformBroadcaster(node)
    node = hearer.node("hearer")
    everything, static_part = Buffer(), Buffer()
    listeners = [TransformListener(everything, node), StaticTransformListener(static_part, node)]
    wait_for_listener(moving)
    wait_for_listener(static)
    moving.sendTransform(stamped("map", "base", 1.0))
    static.sendTransform(stamped("base", "lidar", 1.0))
    hearer.spin_until(
        lambda: everything.can_transform("map", "lidar", at(0)) and static_part.can_transform("base", "lidar", at(0))
    )
    assert not static_part.can_transform("map", "base", at(0))
    for listener in listeners:
        listener.unregister()


def test_other_topics_can_be_listened_to(hearer):
    node = hearer.node("hearer")
    listener = TransformListener(Buffer(), node, tf_topic="/robot/tf", tf_static_topic="/robot/tf_static")
    topics = {subscription.topic_name for subscription in node.subscriptions}
    assert {"/robot/tf", "/robot/tf_static"} <= topics
    assert not {"/tf", "/tf_static"} & topics
    listener.unregister()


def test_with_a_thread_of_its_own_a_listener_ends_a_waiting_lookup_and_the_thread_ends_with_ros(talker, hearer):
    broadcaster = TransformBroadcaster(talker.node("talker"))
    node = rclpy.create_node("hearer", context=hearer.context)
    hearer.nodes.append(node)
    buffer = Buffer()
    listener = TransformListener(buffer, node, spin_thread=True)
    wait_for_listener(broadcaster)
    sender = threading.Timer(0.1, broadcaster.sendTransform, [stamped("map", "base", 1.0, 4.0)])
    sender.start()
    assert x_of(buffer.lookup_transform("map", "base", at(1.0), timeout=Duration(seconds=PATIENCE))) == 4.0
    sender.join()
    hearer.shutdown()
    listener.dedicated_listener_thread.join(PATIENCE)
    assert not listener.dedicated_listener_thread.is_alive()


def test_the_frame_service_tells_the_tree(talker, hearer):
    node = hearer.node("hearer")
    buffer = Buffer(node=node)
    buffer.set_transform(stamped("map", "base", 1.0), "somebody")
    client = talker.node("talker").create_client(FrameGraph, "tf2_frames")
    spinner = threading.Thread(target=hearer.executor.spin)
    spinner.start()
    assert client.wait_for_service(PATIENCE)
    future = client.call_async(FrameGraph.Request())
    talker.spin_until(future.done)
    hearer.executor.shutdown()
    spinner.join()
    report = yaml.safe_load(future.result().frame_yaml)
    assert (report["base"]["parent"], report["base"]["broadcaster"]) == ("map", "somebody")


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
    assert buffer.can_transform("map", "lidar", at(99.0))
    play_until(3)
    assert not buffer.can_transform("map", "base", at(99.0))
    assert buffer.can_transform("base", "lidar", at(3.0))
    buffer.set_transform(stamped("map", "base", 2.0), "bag")
    assert buffer.can_transform("map", "lidar", at(2.0))
