# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Changes of parameters are checked and applied with every rclpy, with and without Humble's missing callbacks."""

from collections.abc import Iterator
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")

from rcl_interfaces.msg import SetParametersResult  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from aqr_perception.nodes.parameters.parameter_callbacks import add_parameter_callbacks  # noqa: E402

NEWER = ("add_pre_set_parameters_callback", "add_post_set_parameters_callback")


class HumbleNode(Node):
    """A node without the callbacks that came after Humble."""

    def __getattribute__(self, name: str) -> Any:
        if name in NEWER:
            raise AttributeError(name)
        return super().__getattribute__(name)


@pytest.fixture(params=[HumbleNode, Node], ids=["Humble", "later"])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    context = rclpy.Context()
    context.init()
    made = request.param("callbacks_under_test", context=context)
    made.declare_parameter("speed", 1.0)
    yield made
    made.destroy_node()
    context.shutdown()


def check(changes: list[Parameter]) -> SetParametersResult:
    return SetParametersResult(successful=all(change.value < 10.0 for change in changes), reason="too fast")


def as_float(changes: list[Parameter]) -> list[Parameter]:
    return [Parameter(change.name, value=float(change.value)) for change in changes]


def test_an_accepted_change_is_applied_once_and_a_refused_one_is_not(node: Node) -> None:
    applied: list[float] = []
    add_parameter_callbacks(node, as_float, check, lambda changes: applied.extend(one.value for one in changes))
    refused = node.set_parameters([Parameter("speed", value=20.0)])[0]
    assert not refused.successful and refused.reason == "too fast" and applied == []
    assert node.set_parameters([Parameter("speed", value=3.0)])[0].successful
    assert applied == [3.0] and node.get_parameter("speed").value == 3.0


def test_an_integer_for_a_double_is_taken_where_rclpy_lets_nodes_convert_it(node: Node) -> None:
    add_parameter_callbacks(node, as_float, check, lambda _changes: None)
    result = node.set_parameters([Parameter("speed", value=3)])[0]
    assert result.successful is (type(node) is Node)
    assert node.get_parameter("speed").value == (3.0 if result.successful else 1.0)
