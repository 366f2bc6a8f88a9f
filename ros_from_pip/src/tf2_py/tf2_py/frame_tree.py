# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The tree of frames, and the path from one frame to another.

Semantics follow walkToTopParent and getLatestCommonTime in tf2/src/buffer_core.cpp of ROS 2 Kilted.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from tf2_py.exceptions import ConnectivityException, ExtrapolationException, LookupException
from tf2_py.stamps import LATEST
from tf2_py.time_cache import FrameCache, Link, Sample, StaticCache, TimeCache

MAX_GRAPH_DEPTH: Final = 1000
NO_PARENT: Final = "NO_PARENT"


class Hop(NamedTuple):
    """One step along a path: up from a child to its parent, or, `inverted`, down from the parent to the child."""

    child: str
    link: Link
    inverted: bool


class FrameTree:
    """Frames by name, in order of first appearance; a frame without a parent so far maps to None. Not thread-safe."""

    def __init__(self, cache_time: int) -> None:
        self.cache_time = cache_time
        self.frames: dict[str, FrameCache | None] = {}

    def insert(self, child: str, sample: Sample, is_static: bool) -> bool:
        """Store a pose of `child`; False if it is too old to be kept."""
        cache = self.frames.get(child)
        if cache is None or cache.is_static != is_static:
            cache = StaticCache(sample) if is_static else TimeCache(self.cache_time)
            self.frames[child] = cache
        self.frames.setdefault(sample.parent, None)
        return cache.insert(sample)

    def clear(self) -> None:
        """Forget all moving poses; names and static poses stay."""
        for cache in self.frames.values():
            if cache is not None:
                cache.clear()

    def path(self, target: str, source: str, stamp: int) -> tuple[list[Hop], int]:
        """Hops that carry coordinates from `source` to `target`, and the time they hold for (that of time 0 resolved).

        Raises ConnectivityException, ExtrapolationException, or LookupException for a loop.
        """
        if source == target:
            return [], stamp
        if stamp == LATEST:
            stamp = self.latest_common_time(target, source)

        upward: list[Hop] = []
        height_of = {source: 0}
        frame = source
        dead_end: ExtrapolationException | None = None
        while frame != target and (cache := self.frames.get(frame)) is not None:
            try:
                link = cache.link_at(stamp)
            except ExtrapolationException as error:
                # Not the end yet: the target may hang below this frame.
                dead_end = error
                break
            upward.append(Hop(frame, link, inverted=False))
            self._check_depth(upward)
            frame = link.parent
            height_of.setdefault(frame, len(upward))

        downward: list[Hop] = []
        frame = target
        while frame not in height_of and (cache := self.frames.get(frame)) is not None:
            try:
                link = cache.link_at(stamp)
            except ExtrapolationException as error:
                raise _between(error, target, source) from None
            downward.append(Hop(frame, link, inverted=True))
            self._check_depth(downward)
            frame = link.parent

        if frame not in height_of:
            raise self._unconnected(target, source) if dead_end is None else _between(dead_end, target, source)
        return upward[: height_of[frame]] + downward[::-1], stamp

    def latest_common_time(self, target: str, source: str) -> int:
        """Newest stamp that every moving frame between the two has reached; 0 if none of them moves.

        Raises ConnectivityException, or LookupException for a loop.
        """
        if source == target:
            cache = self.frames.get(source)
            return cache.newest_stamp if cache is not None else 0

        newest_up_to: dict[str, int | None] = {}
        common: int | None = None
        frame = source
        for newest in self._ancestry(source):
            common = _earlier(common, newest[0])
            frame = newest[1]
            newest_up_to.setdefault(frame, common)
            if frame == target:
                return common or 0

        common = None
        for stamp, parent in self._ancestry(target):
            common = _earlier(common, stamp)
            if parent == source:
                return common or 0
            if parent in newest_up_to:
                return _earlier(common, newest_up_to[parent] or 0) or 0
        raise self._unconnected(target, source)

    def describe(self) -> str:
        """One line a frame: its name and its newest parent."""
        lines = []
        for name, cache in self.frames.items():
            if cache is not None:
                newest = cache.newest()
                lines.append(f"Frame {name} exists with parent {NO_PARENT if newest is None else newest[1]}.\n")
        return "".join(lines)

    def _ancestry(self, frame: str) -> Iterator[tuple[int, str]]:
        """Newest stamp and parent of the frame, of its parent, and so on."""
        steps: list[tuple[int, str]] = []
        while (cache := self.frames.get(frame)) is not None and (newest := cache.newest()) is not None:
            yield newest
            steps.append(newest)
            self._check_depth(steps)
            frame = newest[1]

    def _check_depth(self, steps: Sequence[object]) -> None:
        if len(steps) > MAX_GRAPH_DEPTH:
            raise LookupException(f"The tf tree is invalid because it contains a loop.\n{self.describe()}\n")

    @staticmethod
    def _unconnected(target: str, source: str) -> ConnectivityException:
        return ConnectivityException(
            f"Could not find a connection between '{target}' and '{source}' because they are not part of the same "
            "tree.Tf has two or more unconnected trees."
        )


def _between(error: ExtrapolationException, target: str, source: str) -> ExtrapolationException:
    return ExtrapolationException(f"{error}, when looking up transform from frame [{source}] to frame [{target}]")


def _earlier(common: int | None, stamp: int) -> int | None:
    """The earlier of two stamps; None and 0 (static) set no limit."""
    if not stamp:
        return common
    return stamp if common is None else min(common, stamp)
