# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Registration of a node's parameter callbacks with every supported rclpy."""

from collections.abc import Callable, Sequence

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

Check = Callable[[Sequence[Parameter]], SetParametersResult]
Apply = Callable[[Sequence[Parameter]], None]
Convert = Callable[[Sequence[Parameter]], list[Parameter]]


def add_parameter_callbacks(node: Node, convert: Convert, check: Check, apply: Apply) -> None:
    """Register callbacks for changes of parameters.

    ROS 2 Humble has neither of the callbacks before and after a change. There, nothing is converted, and a change is
    applied as soon as it is accepted, just before rclpy stores it.

    Args:
        convert: returns the changes in the parameters' types.
        check: accepts or refuses the changes.
        apply: called with accepted changes.
    """
    if hasattr(node, "add_post_set_parameters_callback"):
        node.add_pre_set_parameters_callback(convert)
        node.add_on_set_parameters_callback(check)
        node.add_post_set_parameters_callback(apply)
        return

    def check_and_apply(changes: Sequence[Parameter]) -> SetParametersResult:
        result = check(changes)
        if result.successful:
            apply(changes)
        return result

    node.add_on_set_parameters_callback(check_and_apply)
