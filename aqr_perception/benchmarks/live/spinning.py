# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Callbacks of a node in a background thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node


@contextmanager
def spinning(node: Node) -> Iterator[None]:
    """Spin a node in a background thread, in the node's own context."""
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)

    def spin() -> None:
        with suppress(ExternalShutdownException):  # raised when the executor is shut down
            executor.spin()

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        executor.shutdown()
        thread.join()
