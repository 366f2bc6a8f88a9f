# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Items made by another thread, a few ahead."""

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

from aqr_perception.nodes.worker import start_thread

ItemT = TypeVar("ItemT")
_POLL = 0.1


def read_ahead(items: Iterator[ItemT], depth: int, name: str) -> Iterator[ItemT]:
    """Yield the items of an iterator, which another thread runs; its error is raised here.

    Args:
        depth: number of items that wait at most.
        name: name of the thread.
    """
    waiting: queue.Queue[tuple[ItemT | None, BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: ItemT | None, error: BaseException | None = None) -> bool:
        while not stop.is_set():
            try:
                waiting.put((item, error), timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(None, StopIteration())
        except BaseException as error:  # of any kind: the thread's user gets it
            put(None, error)

    thread = start_thread(run, name)
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]  # None only with an error
    finally:
        stop.set()
        thread.join()
