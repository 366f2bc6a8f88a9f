# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Base of all filters: a list of callbacks."""

from collections.abc import Callable
from typing import Any


class SimpleFilter:
    """Base of filters that call registered callbacks, in order of registration, with each message of their output."""

    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}

    def registerCallback(self, cb: Callable[..., Any], *args: Any) -> int:
        """Call `cb(*messages, *args)` on every output; return the key of the connection in `callbacks`."""
        connection = len(self.callbacks)
        self.callbacks[connection] = (cb, args)
        return connection

    def signalMessage(self, *msg: Any) -> None:
        """Pass `msg` to all callbacks."""
        for cb, args in tuple(self.callbacks.values()):
            cb(*msg, *args)
