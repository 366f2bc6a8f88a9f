# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Connection of the node's subscriptions with publishers, from the ROS graph."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""QoS of a subscription that asks for messages from before it; only transient-local publishers serve it."""


class Link(NamedTuple):
    """A topic that the node subscribes to.

    Attributes:
        topic: full name of the topic, after remapping.
        kind: name of the message type, e.g. ``sensor_msgs/msg/Image``.
        profiles: QoS of the node's subscriptions; a publisher needs to be compatible with one of them.
    """

    topic: str
    kind: str
    profiles: tuple[QoSProfile, ...]


class LinkState(NamedTuple):
    """Why a topic brings no messages.

    Attributes:
        reason: a sentence with the topic.
        mismatch: whether publishers exist, but none can reach the node. Waiting does not help then.
        absent: whether there is no publisher.
        latched: global identifiers of the publishers that serve `LATCHED` subscriptions.
        volatile: whether there are others, too. They log a warning about such a subscription.
    """

    reason: str = ""
    mismatch: bool = False
    absent: bool = False
    latched: frozenset[bytes] = frozenset()
    volatile: bool = False

    @property
    def is_cut(self) -> bool:
        """Whether no message can come as long as the publishers are the same."""
        return self.absent or self.mismatch


NO_FAULT = LinkState()


def link_state(node: Node, link: Link) -> LinkState:
    """Return why a topic that brings no messages brings none."""
    publishers = node.get_publishers_info_by_topic(link.topic)
    if not publishers:
        return LinkState(f"{link.topic} has no publisher", absent=True)
    of_kind = [publisher for publisher in publishers if publisher.topic_type == link.kind]
    if not of_kind:
        found = ", ".join(sorted({f"{_name(one)} publishes {one.topic_type}" for one in publishers}))
        return LinkState(f"{link.topic}: {found}, needed {link.kind}; correct the topic's name or type", True)
    reasons = [_incompatibility(publisher, link.profiles) for publisher in of_kind]
    if all(reasons):
        found = ", ".join(sorted(set(reasons)))
        return LinkState(f"{link.topic}: {found}; set sensor_reliability to best_effort, or change the publisher", True)
    connected = [one for one, reason in zip(of_kind, reasons, strict=True) if not reason]
    names = ", ".join(sorted({_name(one) for one in connected}))
    latched = frozenset(bytes(one.endpoint_gid) for one in connected if _serves_latched(one))
    reason = f"{link.topic}: {names} is connected, but sends nothing that arrives"
    return LinkState(reason, latched=latched, volatile=len(latched) < len(of_kind))


def _serves_latched(publisher: Any) -> bool:
    return bool(qos_check_compatible(publisher.qos_profile, LATCHED)[0] != QoSCompatibility.ERROR)


def _incompatibility(publisher: Any, profiles: Sequence[QoSProfile]) -> str:
    """Return why a publisher matches none of the subscriptions; empty if it matches one."""
    reasons = []
    for profile in profiles:
        compatibility, reason = qos_check_compatible(publisher.qos_profile, profile)
        if compatibility != QoSCompatibility.ERROR:
            return ""
        reasons.append(reason.removeprefix("ERROR: ").rstrip("; "))
    return f"{_name(publisher)} has a QoS that cannot match ({reasons[0]})"


def _name(publisher: Any) -> str:
    return f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
