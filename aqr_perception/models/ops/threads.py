# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Threads of small operations: waking a sleeping thread takes longer than such an operation."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread(enabled: bool) -> Iterator[None]:
    """Compute everything inside in the calling thread.

    An operation on several threads waits for each of them to wake up, which takes about 50 microseconds where idle
    threads sleep (see `process_environment`). Hundreds of small operations add up to a fifth of a small decoder.

    Args:
        enabled: false leaves the number of threads as it is.
    """
    if not enabled:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
