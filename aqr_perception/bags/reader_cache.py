# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Bags that stay open between reads, because opening one takes longer than reading a frame of it."""

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from aqr_perception.bags.reader import BagReader


class ReaderCache:
    """The last bags that each thread of each process read. A pickled cache is empty.

    A reader has one position in its file, so threads and forked processes do not share it.

    Args:
        size: number of bags that stay open per thread; the one that was not read for the longest time is closed.
    """

    def __init__(self, size: int = 32) -> None:
        self._size = size
        self._local = threading.local()

    def reader(self, path: Path) -> BagReader:
        """Return the open reader of a bag, which the cache closes.

        Raises:
            BagError: see `BagReader`.
        """
        readers = self._readers()
        if path in readers:
            readers.move_to_end(path)
            return readers[path]
        reader = BagReader(path)
        readers[path] = reader
        while len(readers) > self._size:
            readers.popitem(last=False)[1].close()
        return reader

    def _readers(self) -> OrderedDict[Path, BagReader]:
        local = self._local
        if getattr(local, "process", None) != os.getpid():
            # A forked process has the parent's readers, whose file positions it would share.
            local.process, local.readers = os.getpid(), OrderedDict()
        readers: OrderedDict[Path, BagReader] = local.readers
        return readers

    def __reduce__(self) -> tuple[Any, ...]:
        return ReaderCache, (self._size,)
