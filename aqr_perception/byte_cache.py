# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Collections bounded in bytes, which forget what was not used for longest."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, MutableSet
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ByteCache(Generic[Key, Value]):
    """Values by key. An entry that is larger than all the room there is, is not kept. Thread-safe.

    Args:
        most_bytes: largest size of all entries together.
        size: returns the bytes of an entry.
    """

    def __init__(self, most_bytes: int, size: Callable[[Key, Value], int]) -> None:
        self._most_bytes, self._size = most_bytes, size
        self._entries: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.RLock()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Key]:
        return iter(list(self._entries))

    def get(self, key: Key) -> Value | None:
        """Return a value, which is then the last one to be forgotten; None if there is none."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key]

    def put(self, key: Key, value: Value) -> None:
        """Keep a value, instead of an earlier one of the same key."""
        with self._lock:
            self.discard(key)
            self._entries[key] = value
            self.bytes += self._size(key, value)
            while self.bytes > self._most_bytes:
                self.bytes -= self._size(*self._entries.popitem(last=False))

    def discard(self, key: Key) -> None:
        """Forget a key."""
        with self._lock:
            if key in self._entries:
                self.bytes -= self._size(key, self._entries.pop(key))


class ByteSet(MutableSet[Key]):
    """Keys bounded in bytes.

    Args:
        most_bytes: largest size of all keys together.
        size: returns the bytes of a key.
    """

    def __init__(self, most_bytes: int, size: Callable[[Key], int]) -> None:
        self._keys: ByteCache[Key, bool] = ByteCache(most_bytes, lambda key, _: size(key))

    def __contains__(self, key: object) -> bool:
        return self._keys.get(key) is not None  # type: ignore[arg-type]  # any object may be asked for

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, value: Key) -> None:
        self._keys.put(value, True)

    def discard(self, value: Key) -> None:
        self._keys.discard(value)


def text_bytes(*texts: str) -> int:
    """Return the bytes that texts take at most, with Python's own share."""
    return sum(4 * len(text) + 100 for text in texts)
