# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Threads of small operations: waking a sleeping thread takes longer than such an operation."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()
_before: dict[int, int] = {}
"""Number of threads that each thread inside, by its identifier, had before."""


@contextmanager
def one_thread(enabled: bool) -> Iterator[None]:
    """Compute everything inside in the calling thread.

    An operation on several threads waits for each of them to wake up, which takes about 50 microseconds where idle
    threads sleep (see `process_environment`). Hundreds of small operations add up to a fifth of a small decoder.

    A Python thread whose first operation runs meanwhile gets a single thread from PyTorch, for good. It gets the number
    of the others when it leaves this context itself.

    Args:
        enabled: false leaves the number of threads as it is.
    """
    caller = threading.get_ident()
    if not enabled or caller in _before:
        yield
        return
    with _lock:
        _before[caller] = max(torch.get_num_threads(), *_before.values(), 1)
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            torch.set_num_threads(_before.pop(caller))
