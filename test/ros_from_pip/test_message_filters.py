# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Callbacks, histories and topics of message_filters. Holds for the original, too."""

import os
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

rclpy = pytest.importorskip("rclpy", reason="no ROS 2 here", exc_type=ImportError)
message_filters = pytest.importorskip("message_filters", reason="message_filters is not built or installed")
from message_filters import Cache, SimpleFilter, Subscriber  # noqa: E402
from rclpy.clock import ClockType  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from rclpy.time import Time  # noqa: E402
from std_msgs.msg import Header  # noqa: E402


def stamped(nanoseconds, name=""):
    return SimpleNamespace(header=Header(stamp=Time(nanoseconds=nanoseconds).to_msg()), name=name)


def collect(source):
    messages = []
    source.registerCallback(messages.append)
    return messages


@given(st.lists(st.integers(0, 20), max_size=15), st.integers(1, 6), st.integers(0, 20), st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_cache_equals_a_list_of_the_last_messages(stamps, size, one, other):
    source = SimpleFilter()
    cache = Cache(source, cache_size=size)
    passed_on = collect(cache)
    for stamp in stamps:
        source.signalMessage(stamped(stamp, stamp))
    kept = stamps[-size:]
    assert [message.name for message in passed_on] == stamps
    assert [message.name for message in cache.cache_msgs] == kept
    assert [stamp.nanoseconds for stamp in cache.cache_times] == kept

    def at(stamp):
        return Time(nanoseconds=stamp, clock_type=ClockType.ROS_TIME)

    def name(message):
        return None if message is None else message.name

    low, high = sorted((one, other))
    assert [name(message) for message in cache.getInterval(at(low), at(high))] == [
        stamp for stamp in kept if low <= stamp <= high
    ]
    assert name(cache.getElemAfterTime(at(one))) == next((stamp for stamp in kept if stamp >= one), None)
    assert name(cache.getElemBeforeTime(at(one))) == next((stamp for stamp in reversed(kept) if stamp <= one), None)
    assert name(cache.getLast()) == next((stamp for stamp in kept if stamp >= kept[-1]), None)
    with pytest.raises(AssertionError):
        cache.getInterval(at(5), at(4))


def test_callbacks_get_the_message_and_then_their_own_arguments_in_the_order_of_registration():
    source, calls = SimpleFilter(), []
    assert source.registerCallback(lambda *arguments: calls.append(arguments), "left", 1) == 0
    assert source.registerCallback(lambda *arguments: calls.append(arguments)) == 1
    source.signalMessage("message")
    assert calls == [("message", "left", 1), ("message",)]


@pytest.fixture
def nodes():
    context = rclpy.Context()
    rclpy.init(context=context)
    pair = [rclpy.create_node(name, context=context) for name in ("filters_talker", "filters_listener")]
    executor = SingleThreadedExecutor(context=context)
    for node in pair:
        executor.add_node(node)
    yield *pair, executor
    executor.shutdown()
    for node in pair:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_a_topic_is_received_over_dds_until_its_subscription_is_destroyed(nodes):
    talker, listener, executor = nodes
    topic = f"filters_{os.getpid()}"
    publisher = talker.create_publisher(Header, topic, 10)
    qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
    subscribers = [Subscriber(listener, Header, topic), Subscriber(listener, Header, topic, qos_profile=qos)]
    received = [collect(subscriber) for subscriber in subscribers]
    deadline = time.monotonic() + 10
    while publisher.get_subscription_count() < 2 and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.05)
    publisher.publish(Header(frame_id="lidar"))
    while not all(received) and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.05)
    assert [[message.frame_id for message in messages] for messages in received] == [["lidar"], ["lidar"]]
    for subscriber in subscribers:
        assert listener.destroy_subscription(subscriber.sub)
    assert not list(listener.subscriptions)
