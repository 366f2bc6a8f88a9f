"""The buffer client: lookups in the buffer of another node."""

import threading

import pytest
from helpers.made_up_transforms import at
from helpers.tf2_nodes import PATIENCE, stamped, x_of  # skips this module where ROS is absent

# isort: split

from rclpy.action import ActionServer
from rclpy.duration import Duration
from tf2_msgs.action import LookupTransform
from tf2_msgs.msg import TF2Error
from tf2_ros import (
    BufferClient,
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TimeoutException,
    TransformException,
)


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
