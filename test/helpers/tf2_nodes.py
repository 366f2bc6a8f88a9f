# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Nodes for the tests of tf2_ros (in a DDS domain of their own), and transforms along x. Skips without ROS."""

import time

import pytest

from helpers import made_up_transforms
from helpers.own_domain import DOMAIN

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2's Python client")
pytest.importorskip("tf2_msgs.msg", reason="needs tf2_msgs: build ros_from_pip/src first and source its prefix")

from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402

PATIENCE = 10.0  # seconds that discovery may take on a busy machine


class Process:
    """A separate ROS context, like that of another process, and one executor."""

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


def stamped(parent, child, seconds, x=0.0):
    return made_up_transforms.stamped(parent, child, seconds, (x, 0.0, 0.0))


def x_of(message):
    return message.transform.translation.x
