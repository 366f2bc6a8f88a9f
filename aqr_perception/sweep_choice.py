# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Choice of the LiDAR sweeps that a model's point cloud accumulates."""

import math
from collections.abc import Iterable

_SHORTEST = 0.9
"""Share of the interval after which a sweep is late enough: stamps jitter, and rates do not divide the interval."""


def spaced_sweeps(
    stamps_ns: Iterable[int], count: int, interval: float = 0.0, longest_gap: float = math.inf
) -> list[int]:
    """Return the indices of the sweeps of a cloud: the newest, and past ones at an interval.

    Args:
        stamps_ns: stamps of all sweeps in nanoseconds, newest first; taken only as far as needed.
        count: largest number of sweeps.
        interval: seconds between two chosen sweeps, at least (to a tenth); 0 chooses consecutive ones.
        longest_gap: seconds between two consecutive sweeps, chosen or not, beyond which older ones do not count.
    """
    chosen: list[int] = []
    last_chosen = previous = math.inf
    for index, stamp_ns in enumerate(stamps_ns):
        if index > 0 and previous - stamp_ns > longest_gap * 1e9:
            break
        previous = stamp_ns
        if last_chosen - stamp_ns >= _SHORTEST * interval * 1e9:
            chosen.append(index)
            last_chosen = stamp_ns
        if len(chosen) >= count:
            break
    return chosen
