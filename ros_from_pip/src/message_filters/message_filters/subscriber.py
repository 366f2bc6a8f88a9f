"""The first filter of most chains: a topic."""

from typing import Any

from message_filters.simple_filter import SimpleFilter


class Subscriber(SimpleFilter):
    """Gives out the messages of a topic.

    `Subscriber(node, message_type, topic, **kwargs)`: positional and keyword arguments are those of
    `Node.create_subscription`, less the callback. `qos_profile` is 10 unless given. The attributes of the subscription
    (`topic_name`, `destroy`...) are this filter's too.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.node = args[0]
        self.topic = args[2]
        kwargs.setdefault("qos_profile", 10)
        self.sub = self.node.create_subscription(*args[1:], self.callback, **kwargs)

    def callback(self, msg: Any) -> None:
        """Give `msg` out."""
        self.signalMessage(msg)

    def getTopic(self) -> str:
        """Return the topic as it was given, before remapping."""
        return self.topic

    def __getattr__(self, key: str) -> Any:
        if key == "sub":  # not created yet: without this, looking it up would call this method again
            raise AttributeError(key)
        return getattr(self.sub, key)
