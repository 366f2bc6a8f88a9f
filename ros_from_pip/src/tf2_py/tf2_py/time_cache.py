# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Poses of one frame: samples over time (`TimeCache`) or a fixed one (`StaticCache`).

Semantics follow tf2/src/cache.cpp and static_cache.cpp of ROS 2 Kilted.
"""

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from tf2_py.exceptions import ExtrapolationException
from tf2_py.stamps import LATEST, display


class Sample(NamedTuple):
    """Pose of a child frame in its parent frame at one time."""

    stamp: int
    """Nanoseconds."""
    parent: str
    rotation: tuple[float, float, float, float]
    """Quaternion (x, y, z, w)."""
    translation: tuple[float, float, float]
    """Metres."""


class Link(NamedTuple):
    """Pose of a child frame in its parent at a requested time, not interpolated yet."""

    before: Sample
    after: Sample
    fraction: float
    """Position of the requested time between `before` (0) and `after` (1)."""

    @property
    def parent(self) -> str:
        return self.before.parent


class TimeCache:
    """Samples of one moving frame, sorted by stamp, no older than `storage_time` nanoseconds before the newest."""

    is_static = False

    def __init__(self, storage_time: int) -> None:
        self._storage_time = storage_time
        self._stamps: list[int] = []
        self._samples: list[Sample] = []

    @property
    def newest_stamp(self) -> int:
        return self._stamps[-1] if self._stamps else 0

    def insert(self, sample: Sample) -> bool:
        """Store a sample; False if it is older than the storage time allows. An exact duplicate is stored once."""
        # As in tf2, the newest stamp before this sample decides what is too old.
        horizon = self.newest_stamp - self._storage_time
        stale = bisect_left(self._stamps, horizon)
        del self._stamps[:stale], self._samples[:stale]
        if self._stamps and sample.stamp < horizon:
            return False
        position = bisect_right(self._stamps, sample.stamp)
        same_time = self._samples[bisect_left(self._stamps, sample.stamp) : position]
        if sample not in same_time:
            self._stamps.insert(position, sample.stamp)
            self._samples.insert(position, sample)
        return True

    def clear(self) -> None:
        self._stamps.clear()
        self._samples.clear()

    def link_at(self, stamp: int) -> Link:
        """The samples around a time; time 0 means the newest.

        Raises ExtrapolationException if the time is outside the stored samples.
        """
        stamps, samples = self._stamps, self._samples
        if not stamps:
            raise _only_one_time(stamp, 0)
        if stamp == LATEST or stamp == stamps[-1]:
            return Link(samples[-1], samples[-1], 0.0)
        if stamp == stamps[0]:
            return Link(samples[0], samples[0], 0.0)
        if len(stamps) == 1:
            raise _only_one_time(stamp, stamps[0])
        if stamp > stamps[-1]:
            raise ExtrapolationException(
                f"Lookup would require extrapolation into the future.  Requested time {display(stamp)} "
                f"but the latest data is at time {display(stamps[-1])}"
            )
        if stamp < stamps[0]:
            raise ExtrapolationException(
                f"Lookup would require extrapolation into the past.  Requested time {display(stamp)} "
                f"but the earliest data is at time {display(stamps[0])}"
            )
        position = bisect_right(stamps, stamp)
        before, after = samples[position - 1], samples[position]
        if before.parent != after.parent:
            # Poses in two different parents cannot be mixed: the frame stays where it was until it moves over.
            return Link(before, before, 0.0)
        return Link(before, after, (stamp - before.stamp) / (after.stamp - before.stamp))

    def newest(self) -> tuple[int, str] | None:
        """Newest stamp and the parent at that time, or None when empty."""
        return (self._stamps[-1], self._samples[-1].parent) if self._stamps else None


class StaticCache:
    """The pose of a frame that never moves: valid at every time, and not forgotten by `clear`."""

    is_static = True
    newest_stamp = 0

    def __init__(self, sample: Sample) -> None:
        self._sample = sample

    def insert(self, sample: Sample) -> bool:
        self._sample = sample
        return True

    def clear(self) -> None:
        """Keep the pose, because a static transform is sent only once and stays valid after a time jump."""

    def link_at(self, stamp: int) -> Link:
        return Link(self._sample, self._sample, 0.0)

    def newest(self) -> tuple[int, str]:
        """Stamp 0, which limits no latest common time, and the parent."""
        return 0, self._sample.parent


FrameCache = TimeCache | StaticCache


def _only_one_time(requested: int, stored: int) -> ExtrapolationException:
    return ExtrapolationException(
        f"Lookup would require extrapolation at time {display(requested)}, "
        f"but only time {display(stored)} is in the buffer"
    )
