"""The base of all filters: a list of callbacks."""

from collections.abc import Callable
from typing import Any


class SimpleFilter:
    """Calls the registered callbacks, in the order of registration, with each message that it gives out."""

    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}

    def registerCallback(self, cb: Callable[..., Any], *args: Any) -> int:
        """Call `cb(*messages, *args)` on every output; return the key of the connection in `callbacks`."""
        connection = max(self.callbacks, default=-1) + 1
        self.callbacks[connection] = (cb, args)
        return connection

    def signalMessage(self, *msg: Any) -> None:
        """Give `msg` out to all callbacks."""
        for cb, args in tuple(self.callbacks.values()):
            cb(*msg, *args)
