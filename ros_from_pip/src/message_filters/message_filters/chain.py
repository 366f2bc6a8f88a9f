"""Several filters as one."""

from dataclasses import dataclass
from typing import Any

from message_filters.simple_filter import SimpleFilter


class Chain(SimpleFilter):
    """Sends messages through its filters, in the order in which they were added, and gives out the last one's output.

    A filter of a chain needs an `add` method, as `Cache` has.
    """

    @dataclass
    class FilterInfo:
        """A filter and the key, among its callbacks, of its connection to what follows."""

        message_filter: Any
        connection_callback_index: int

    def __init__(self, message_filter: SimpleFilter | None = None) -> None:
        super().__init__()
        self.incoming_connection: int | None = None
        self._message_filters: dict[int, Chain.FilterInfo] = {}
        if message_filter is not None:
            self.connectInput(message_filter)

    def connectInput(self, message_filter: SimpleFilter) -> None:
        """Take messages from `message_filter`. RuntimeError where the chain has an input already."""
        if self.incoming_connection is not None:
            raise RuntimeError("this chain has an input already: make another chain for another input")
        self.incoming_connection = message_filter.registerCallback(self.add)

    def add(self, message: Any) -> None:
        """Send `message` through the chain; an empty chain gives it out as it is."""
        if self._message_filters:
            self._message_filters[0].message_filter.add(message)
        else:
            self.signalMessage(message)

    def addFilter(self, message_filter: Any) -> None:
        """Append a filter."""
        index = len(self._message_filters)
        connection = message_filter.registerCallback(self.signalMessage)
        if index > 0:
            before = self._message_filters[index - 1]
            del before.message_filter.callbacks[before.connection_callback_index]
            before.connection_callback_index = before.message_filter.registerCallback(message_filter.add)
        self._message_filters[index] = Chain.FilterInfo(message_filter, connection)

    def getFilter(self, index: int) -> Any:
        """Return the filter that was added as number `index`, counted from 0. KeyError where there is none."""
        return self._message_filters[index].message_filter
