# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter of a topic's messages."""

from typing import Any

from message_filters.simple_filter import SimpleFilter


class Subscriber(SimpleFilter):
    """Passes on the messages of a topic.

    `Subscriber(node, message_type, topic, **kwargs)`: positional and keyword arguments are those of
    `Node.create_subscription` without the callback. `qos_profile` is 10 if not given.

    Attributes:
        sub: the subscription.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.node = args[0]
        self.topic = args[2]
        kwargs.setdefault("qos_profile", 10)
        self.sub = self.node.create_subscription(*args[1:], self.callback, **kwargs)

    def callback(self, msg: Any) -> None:
        """Pass `msg` on."""
        self.signalMessage(msg)
