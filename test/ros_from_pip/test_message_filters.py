"""Filters and synchronizers: which messages come out, together with which, and over DDS."""

import itertools
import os
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

rclpy = pytest.importorskip("rclpy", reason="no ROS 2 here", exc_type=ImportError)
message_filters = pytest.importorskip("message_filters", reason="message_filters is not built or installed")
from message_filters import (  # noqa: E402
    ApproximateTimeSynchronizer,
    Cache,
    Chain,
    SimpleFilter,
    Subscriber,
    TimeSynchronizer,
)
from rclpy.clock import ClockType  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.time import Time  # noqa: E402
from std_msgs.msg import Header, String  # noqa: E402

MILLISECOND = 1_000_000


def stamped(nanoseconds, name=""):
    return SimpleNamespace(header=Header(stamp=Time(nanoseconds=nanoseconds).to_msg()), name=name)


def nanoseconds(message):
    return Time.from_msg(message.header.stamp).nanoseconds


def collect(synchronizer):
    sets = []
    synchronizer.registerCallback(lambda *messages: sets.append(messages))
    return sets


# Two to four inputs, and messages on them in the order of arrival as (input, stamp in milliseconds).
arrivals = st.integers(2, 4).flatmap(
    lambda inputs: st.tuples(
        st.just(inputs), st.lists(st.tuples(st.integers(0, inputs - 1), st.integers(0, 60)), max_size=40, unique=True)
    )
)


@given(arrivals, st.integers(1, 25), st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_approximate_sets_are_within_the_slop_and_use_each_message_once(arrival, slop, queue_size):
    inputs, sequence = arrival
    filters = [SimpleFilter() for _ in range(inputs)]
    sync = ApproximateTimeSynchronizer(filters, queue_size, slop * 1e-3)
    sets = collect(sync)
    for index, stamp in sequence:
        filters[index].signalMessage(stamped(stamp * MILLISECOND, (index, stamp)))
        assert all(len(queue) <= queue_size for queue in sync.queues)
    for messages in sets:
        assert [message.name[0] for message in messages] == list(range(inputs))
        stamps = [nanoseconds(message) for message in messages]
        assert max(stamps) - min(stamps) < slop * MILLISECOND
    given_out = [message.name for messages in sets for message in messages]
    assert len(given_out) == len(set(given_out))
    # What still waits cannot be a set: it would have been given out when its last message came.
    for waiting in itertools.product(*sync.queues):
        assert max(waiting) - min(waiting) >= slop * MILLISECOND


@given(st.integers(2, 4), st.integers(1, 6), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_jitter_below_half_the_slop_loses_no_set(inputs, count, random):
    filters = [SimpleFilter() for _ in range(inputs)]
    sets = collect(ApproximateTimeSynchronizer(filters, count, 0.02))
    arrival = [(index, period) for period in range(count) for index in range(inputs)]
    random.shuffle(arrival)
    for index, period in arrival:
        filters[index].signalMessage(stamped((1000 + 50 * period + random.randint(-9, 9)) * MILLISECOND, period))
    assert sorted(messages[0].name for messages in sets) == list(range(count))
    assert all(len({message.name for message in messages}) == 1 for messages in sets)


@given(arrivals)
@settings(max_examples=50, deadline=None)
def test_exact_sets_are_those_stamps_that_came_on_every_input_in_any_order(arrival):
    inputs, sequence = arrival
    filters = [SimpleFilter() for _ in range(inputs)]
    sets = collect(TimeSynchronizer(filters, 100))
    for index, stamp in sequence:
        filters[index].signalMessage(stamped(stamp))
    came = [{stamp for index, stamp in sequence if index == number} for number in range(inputs)]
    assert sorted(nanoseconds(messages[0]) for messages in sets) == sorted(set.intersection(*came))
    assert all(len({nanoseconds(message) for message in messages}) == 1 for messages in sets)


def test_staggered_inputs_beyond_the_slop_give_nothing():
    filters = [SimpleFilter(), SimpleFilter()]
    sets = collect(ApproximateTimeSynchronizer(filters, 10, 0.01))
    for period in range(5):
        filters[0].signalMessage(stamped(100 * period * MILLISECOND))
        filters[1].signalMessage(stamped((100 * period + 50) * MILLISECOND))
    assert sets == []


@pytest.mark.parametrize("kind", [TimeSynchronizer, lambda fs, size: ApproximateTimeSynchronizer(fs, size, 0.1)])
def test_synchronizer_outlives_a_callback_that_raises(kind):
    filters = [SimpleFilter(), SimpleFilter()]
    sync = kind(filters, 5)
    sync.registerCallback(lambda *_: 1 / 0)
    filters[0].signalMessage(stamped(1))
    with pytest.raises(ZeroDivisionError):
        filters[1].signalMessage(stamped(1))
    assert not sync.lock.locked()


def test_messages_without_a_stamp_are_dropped_or_take_the_time_of_arrival():
    for allowed in (False, True):
        filters = [SimpleFilter(), SimpleFilter()]
        sets = collect(ApproximateTimeSynchronizer(filters, 5, 10.0, allow_headerless=allowed))
        cache = Cache(filters[0], 5, allow_headerless=allowed)
        for source in filters:
            source.signalMessage(String(data="no header"))
        assert len(sets) == len(cache.cache_msgs) == int(allowed)


@given(st.lists(st.integers(0, 20), max_size=15), st.integers(1, 6), st.integers(0, 20), st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_cache_answers_as_a_list_of_the_last_messages_would(stamps, size, one, other):
    source = SimpleFilter()
    cache = Cache(source, size)
    passed_on = collect(cache)
    for stamp in stamps:
        source.signalMessage(stamped(stamp, stamp))
    kept = stamps[-size:]
    assert [messages[0].name for messages in passed_on] == stamps

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
    assert cache.getOldestTime() == (at(kept[0]) if kept else None)
    assert cache.getLastestTime() == (at(kept[-1]) if kept else None)
    assert name(cache.getLast()) == next((stamp for stamp in kept if stamp >= kept[-1]), None)
    with pytest.raises(AssertionError, match="before it starts"):
        cache.getInterval(at(5), at(4))


def test_callbacks_get_the_message_and_then_their_own_arguments():
    source, calls = SimpleFilter(), []
    assert source.registerCallback(lambda *arguments: calls.append(arguments), "left", 1) == 0
    assert source.registerCallback(lambda *arguments: calls.append(arguments)) == 1
    source.signalMessage("message")
    assert calls == [("message", "left", 1), ("message",)]


def test_chain_sends_messages_through_its_filters_in_order():
    source, chain = SimpleFilter(), Chain()
    chain.connectInput(source)
    out = collect(chain)
    source.signalMessage(stamped(0))
    first, second = Cache(SimpleFilter(), 5), Cache(SimpleFilter(), 5)
    chain.addFilter(first)
    chain.addFilter(second)
    source.signalMessage(stamped(1))
    assert [len(first.cache_msgs), len(second.cache_msgs), len(out)] == [1, 1, 2]
    assert (chain.getFilter(0), chain.getFilter(1)) == (first, second)
    with pytest.raises(KeyError):
        chain.getFilter(2)
    with pytest.raises(RuntimeError, match="input already"):
        chain.connectInput(source)


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


def test_two_topics_are_synchronized_over_dds(nodes):
    talker, listener, executor = nodes
    topics = [f"filters_{os.getpid()}_{side}" for side in ("left", "right")]
    publishers = [talker.create_publisher(Header, topic, 10) for topic in topics]
    subscribers = [Subscriber(listener, Header, topics[0]), Subscriber(listener, Header, topics[1], qos_profile=10)]
    # A Header has no header of its own: it is taken at its time of arrival.
    sets = collect(ApproximateTimeSynchronizer(subscribers, 5, 5.0, allow_headerless=True))
    deadline = time.monotonic() + 10
    while any(publisher.get_subscription_count() == 0 for publisher in publishers) and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.05)
    for publisher, frame in zip(publishers, ("left", "right"), strict=True):
        publisher.publish(Header(frame_id=frame))
    while not sets and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.05)
    assert [[message.frame_id for message in messages] for messages in sets] == [["left", "right"]]
    assert subscribers[0].getTopic() == topics[0]
    assert subscribers[0].topic_name == f"/{topics[0]}"  # an attribute of the subscription
    with pytest.raises(AttributeError):
        subscribers[0].no_such_attribute  # noqa: B018
