# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Threads and memory of the process: what OpenMP and glibc's allocator need to know before torch loads.

The user's own environment variables have priority over everything here.
"""

import ctypes
import os
import sys
from collections.abc import Mapping
from pathlib import Path

_OPENMP_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
_OPENMP_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT")
_ALLOCATOR = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENAS = -1, -3, -8
"""Names of glibc's options in ``malloc.h``."""

_KEPT_BYTES = 256 * 2**20
"""Free memory that the allocator keeps at the end of the heap."""

_MAPPED_BYTES = 32 * 2**20
"""Size from which a block gets its own mapping, the largest that glibc accepts."""


def prepare_process(leave_core: bool = False) -> None:
    """Set how OpenMP waits and how many threads it has, and how the allocator recycles memory; before torch loads.

    Idle OpenMP threads sleep instead of spinning. Spinning takes the processor from other processes, and from the very
    thread that the others wait for: with other jobs on the machine, a frame took five times as long.

    The allocator keeps large freed blocks, because the page faults of a new feature map cost as much time as the
    arithmetic of a small convolution. All threads share one heap: the heaps of other threads than the first, one of
    which runs the node's model, cannot hold blocks of more than 64 MiB, and map new pages for each of them.

    Args:
        leave_core: leave one physical core to reception and decoding, on processors with more than two.
    """
    os.environ.update(openmp_settings(os.environ, physical_cores(), leave_core))
    if not any(name.startswith(_ALLOCATOR) for name in os.environ):
        _keep_freed_memory()


def openmp_settings(environment: Mapping[str, str], cores: int, leave_core: bool) -> dict[str, str]:
    """Return the variables to set for OpenMP: GNU's, which torch's wheels contain, or Intel's, as in Conda's builds."""
    settings: dict[str, str] = {}
    if not any(name in environment for name in _OPENMP_WAITING):
        settings |= {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
    if leave_core and cores > 2 and not any(name in environment for name in _OPENMP_THREADS):
        settings["OMP_NUM_THREADS"] = str(cores - 1)
    return settings


def physical_cores(topology: Path = Path("/sys/devices/system/cpu")) -> int:
    """Return the number of physical cores that this process may use; that of logical ones where Linux does not say."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = set()
    for processor in usable:
        try:
            siblings.add((topology / f"cpu{processor}/topology/thread_siblings_list").read_text().strip())
        except OSError:
            siblings.add(str(processor))
    return len(siblings)


def processor_entries(listing: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Return what Linux says about the first processor, such as ``model name`` and ``flags``; nothing elsewhere."""
    try:
        first = listing.read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _keep_freed_memory() -> None:
    """Set glibc's thresholds; the environment's variables would count only from the start of the process."""
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_MMAP_THRESHOLD, _MAPPED_BYTES)
    mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    mallopt(_ARENAS, 1)
