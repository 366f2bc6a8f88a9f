"""tf2 in nodes: broadcasting, listening, waiting and clearing over DDS (domain 42)."""

import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

SOURCES = Path(__file__).parents[2] / "ros_from_pip" / "src"
sys.path[:0] = [str(SOURCES / "tf2_py"), str(SOURCES / "tf2_ros")]
rclpy = pytest.importorskip("rclpy", reason="needs ROS 2's Python client")
pytest.importorskip("tf2_msgs.msg", reason="needs tf2_msgs: build ros_from_pip/src first and source its prefix")

from builtin_interfaces.msg import Time as TimeMessage  # noqa: E402
from geometry_msgs.msg import PointStamped, TransformStamped  # noqa: E402
from rclpy.action import ActionServer  # noqa: E402
from rclpy.clock import ROSClock  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.duration import Duration  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.time import Time  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from tf2_msgs.action import LookupTransform  # noqa: E402
from tf2_msgs.msg import TF2Error  # noqa: E402
from tf2_msgs.srv import FrameGraph  # noqa: E402
from tf2_ros import (  # noqa: E402
    Buffer,
    BufferClient,
    BufferInterface,
    ConnectivityException,
    ConvertRegistration,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    NotImplementedException,
    Stamped,
    StaticTransformBroadcaster,
    StaticTransformListener,
    TimeoutException,
    TransformBroadcaster,
    TransformException,
    TransformListener,
    TransformRegistration,
    TypeException,
    convert,
)

DOMAIN = 42
PATIENCE = 10.0  # seconds that discovery may take on a busy machine


class Process:
    """A ROS context of its own, as a separate process would have, and one executor."""

    def __init__(self):
        self.context = Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.nodes = []

    def node(self, name, **options):
        node = rclpy.create_node(name, context=self.context, **options)
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def spin_until(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "nothing arrived over DDS"
            self.executor.spin_once(timeout_sec=0.05)

    def shutdown(self):
        if self.context.ok():
            self.executor.shutdown()
            rclpy.shutdown(context=self.context)
            for node in self.nodes:
                node.destroy_node()


@pytest.fixture
def talker():
    process = Process()
    yield process
    process.shutdown()


@pytest.fixture
def hearer():
    process = Process()
    yield process
    process.shutdown()


def stamped(parent, child, seconds, x=0.0):
    message = TransformStamped()
    message.header.frame_id, message.child_frame_id = parent, child
    message.header.stamp = Time(nanoseconds=round(seconds * 1e9)).to_msg()
    message.transform.translation.x = x
    return message


def at(seconds):
    return Time(nanoseconds=round(seconds * 1e9))


def x_of(message):
    return message.transform.translation.x


def wait_for_listener(broadcaster):
    deadline = time.monotonic() + PATIENCE
    while broadcaster.pub_tf.get_subscription_count() == 0:
        assert time.monotonic() < deadline, "no listener discovered"
        time.sleep(0.01)


# Over DDS


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


# Without DDS


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


# Buffer client


@pytest.mark.parametrize(
    ("code", "exception"),
    [
        (TF2Error.LOOKUP_ERROR, LookupException),
        (TF2Error.CONNECTIVITY_ERROR, ConnectivityException),
        (TF2Error.EXTRAPOLATION_ERROR, ExtrapolationException),
        (TF2Error.INVALID_ARGUMENT_ERROR, InvalidArgumentException),
        (TF2Error.TIMEOUT_ERROR, TimeoutException),
        (TF2Error.TRANSFORM_ERROR, TransformException),
    ],
)
def test_the_buffer_client_passes_on_transforms_and_the_servers_errors(talker, code, exception):
    goals = []

    def answer(goal_handle):
        goals.append(goal_handle.request)
        goal_handle.succeed()
        result = LookupTransform.Result(transform=stamped("map", "base", 1.0, 6.0))
        if goal_handle.request.target_frame == "bad":
            result.error = TF2Error(error=code, error_string="the server's reason")
        return result

    node = talker.node("server_and_client")
    server = ActionServer(node, LookupTransform, "buffer_server", answer)
    client = BufferClient(node, "buffer_server")
    spinner = threading.Thread(target=talker.executor.spin)
    spinner.start()
    assert client.action_client.wait_for_server(PATIENCE)
    padding = Duration(seconds=PATIENCE)
    assert x_of(client.lookup_transform("map", "base", at(1.0), padding)) == 6.0
    assert x_of(client.lookup_transform_full("map", at(2.0), "base", at(1.0), "odom", padding)) == 6.0
    assert not goals[0].advanced
    assert (goals[1].advanced, goals[1].fixed_frame, goals[1].target_time.sec) == (True, "odom", 2)
    with pytest.raises(exception, match="the server's reason") as caught:
        client.lookup_transform("bad", "base", at(1.0), padding)
    assert caught.type is exception
    assert not client.can_transform("bad", "base", at(1.0), padding)
    assert client.can_transform("map", "base", at(1.0), padding)
    with pytest.raises(TypeError, match=r"Must pass a rclpy\.time\.Time object"):
        client.lookup_transform("map", "base", 1.0)
    talker.executor.shutdown()
    spinner.join()
    client.destroy()
    server.destroy()


def test_without_a_server_the_buffer_client_times_out(talker):
    client = BufferClient(talker.node("client"), "nobody")
    with pytest.raises(TimeoutException, match="The BufferServer is not ready"):
        client.lookup_transform("a", "b", at(0))
    assert not client.can_transform_full("a", at(0), "b", at(0), "c")
    client.destroy()
