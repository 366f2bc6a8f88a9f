# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Messages of a running ROS system, heard over DDS for some seconds."""

import importlib
import sys
import time
from functools import partial
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from tqdm import tqdm

from aqr_perception.bags.messages import TYPESTORE
from aqr_perception.bags.reader import BagMessage
from aqr_perception.inspection.finding import Finding, finding
from aqr_perception.inspection.observations import Observations, Topic

_OWN = ("/rosout", "/parameter_events")
_DISCOVERY_PERIOD = 0.25
_SPIN = 0.05
_DEPTH = 50


def listen(seconds: float, progress: bool = True) -> tuple[Observations, list[Finding]]:
    """Hear all topics of the running system.

    Each topic is subscribed to with a QoS that its publishers match. Messages are taken as bytes, and only samples of
    pictures and point clouds are decoded.

    Returns:
        What was heard, and what could not be.
    """
    context = Context()
    rclpy.init(args=[], context=context)
    try:
        node = rclpy.create_node("aqr_inspect", context=context, start_parameter_services=False, enable_rosout=False)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        listener = _Listener(node)
        bar = tqdm(
            total=seconds, desc="listening", disable=not (progress and sys.stderr.isatty()),
            bar_format="{l_bar}{bar}| {n:.1f}/{total:.1f} s",
        )  # fmt: skip
        start = now = time.monotonic()
        next_discovery = 0.0
        while now - start < seconds:
            if now >= next_discovery:
                listener.discover()
                next_discovery = now + _DISCOVERY_PERIOD
            executor.spin_once(timeout_sec=_SPIN)
            before, now = now, time.monotonic()
            bar.update(min(now - before, seconds - bar.n))
        bar.close()
        listener.close()
        executor.shutdown()
        return listener.heard, listener.findings()
    finally:
        rclpy.try_shutdown(context=context)


class _Listener:
    """Subscriptions to every topic with a publisher."""

    def __init__(self, node: Node) -> None:
        self.heard = Observations(whole=False)
        self._node = node
        self._subscriptions: dict[str, Any] = {}
        self._unknown: dict[str, str] = {}

    def discover(self) -> None:
        """Subscribe to the topics that are new."""
        for name, types in self._node.get_topic_names_and_types():
            if name in self._subscriptions or name in _OWN or name in self._unknown:
                continue
            publishers = self._node.get_publishers_info_by_topic(name)
            if not publishers:
                continue
            kind = publishers[0].topic_type or types[0]
            message_class = _message_class(kind)
            if message_class is None:
                self._unknown[name] = kind
                continue
            profiles = tuple(publisher.qos_profile for publisher in publishers)
            self.heard.topics[name] = Topic(name, kind, qos=profiles)
            self._subscriptions[name] = self._node.create_subscription(
                message_class, name, partial(self._take, name, kind), _matching(profiles), raw=True
            )

    def _take(self, topic: str, kind: str, data: bytes) -> None:
        self.heard.add(BagMessage(topic, kind, time.time_ns(), bytes(data), TYPESTORE))

    def findings(self) -> list[Finding]:
        """Return what could not be heard."""
        findings = []
        for name, kind in self._unknown.items():
            package = kind.split("/")[0].replace("_", "-")
            remedy = f"install ros-<distro>-{package} to see it; the node does not need it"
            needed = "an installed message package"
            findings.append(finding("odd", name, "unknown type", kind, needed, remedy))
        if not self.heard.topics and not self._unknown:
            found, remedy = "no topic with a publisher", "start the system; check ROS_DOMAIN_ID and the network"
            findings.append(finding("odd", "system", "nothing runs", found, "publishers", remedy))
        return findings

    def close(self) -> None:
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)
        self._node.destroy_node()


def _matching(profiles: tuple[QoSProfile, ...]) -> QoSProfile:
    """Return a QoS that matches all publishers: of each policy, the weakest that they offer."""
    reliable = all(profile.reliability != ReliabilityPolicy.BEST_EFFORT for profile in profiles)
    latched = all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in profiles)
    return QoSProfile(
        depth=_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def _message_class(kind: str) -> type[Any] | None:
    """Return the class of a type such as ``sensor_msgs/msg/Image``; None if its package is not installed."""
    package, *folders, name = kind.split("/")
    try:
        found: type[Any] = getattr(importlib.import_module(".".join([package, *folders])), name)
    except (ImportError, AttributeError):
        return None
    return found
