# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Output topics that keep their messages, in place of a node's publishers."""

from collections.abc import Callable
from typing import Any, NamedTuple

from rclpy.serialization import serialize_message


class OutputMessage(NamedTuple):
    """A published message.

    Attributes:
        topic, type: full names, such as ``/aqr_perception/detections`` and ``std_msgs/msg/Header``.
        data: the message in CDR with its encapsulation header.
        message: the message itself.
    """

    topic: str
    type: str
    data: bytes
    message: Any


class RecordedTopics:
    """Stands in for the node of `Publishers` and `TrackPublisher`.

    Args:
        node: full name of the node, such as ``/aqr_perception``.
        wanted: whether a topic, with the node's name replaced by ``~``, has a subscriber.
    """

    def __init__(self, node: str, wanted: Callable[[str], bool]) -> None:
        self._node, self._wanted = node, wanted
        self._messages: list[OutputMessage] = []

    def create_publisher(self, kind: type, topic: str, depth: int) -> "_RecordedTopic":
        """Return a publisher; `depth` means nothing here."""
        return _RecordedTopic(kind, topic.replace("~", self._node, 1), self._wanted(topic), self._messages)

    def destroy_publisher(self, publisher: "_RecordedTopic") -> None:
        """Do nothing: these publishers need no end."""

    def take(self) -> list[OutputMessage]:
        """Return the messages since the last call."""
        taken = list(self._messages)
        self._messages.clear()
        return taken


class _RecordedTopic:
    def __init__(self, kind: type, topic: str, wanted: bool, messages: list[OutputMessage]) -> None:
        self._type = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        self._topic, self._wanted, self._messages = topic, wanted, messages

    def get_subscription_count(self) -> int:
        return int(self._wanted)

    def publish(self, message: Any) -> None:
        if self._wanted:
            self._messages.append(OutputMessage(self._topic, self._type, serialize_message(message), message))
