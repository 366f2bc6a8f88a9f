"""The frame tree as YAML (the tf2_frames service) and as a Graphviz graph (view_frames)."""

from collections.abc import Iterator
from typing import NamedTuple

from tf2_py.frame_tree import NO_PARENT, FrameTree
from tf2_py.stamps import LATEST, NANOSECONDS_PER_SECOND, display
from tf2_py.time_cache import FrameCache

SHORTEST_SPAN = 100_000
"""Nanoseconds: the rate of a single sample is quoted as if it came in this span."""


class FrameReport(NamedTuple):
    """What the reports say of one frame."""

    name: str
    parent: str
    broadcaster: str
    rate: float
    """Hz."""
    newest_stamp: int
    oldest_stamp: int

    @property
    def buffer_length(self) -> float:
        """Seconds between the oldest and the newest sample."""
        return (self.newest_stamp - self.oldest_stamp) / NANOSECONDS_PER_SECOND


def as_yaml(tree: FrameTree) -> str:
    """One YAML mapping a frame that has data; `[]` where no frame was ever named."""
    if not tree.frames:
        return "[]"
    return "".join(
        f"{frame.name}: \n"
        f"  parent: '{frame.parent}'\n"
        f"  broadcaster: '{frame.broadcaster}'\n"
        f"  rate: {frame.rate:.3f}\n"
        f"  most_recent_transform: {display(frame.newest_stamp)}\n"
        f"  oldest_transform: {display(frame.oldest_stamp)}\n"
        f"  buffer_length: {frame.buffer_length:.3f}\n"
        for frame in _reports(tree)
    )


def as_dot(tree: FrameTree, now: int) -> str:
    """A Graphviz digraph, edges from parent to child; ages of the data are given unless `now` is 0."""
    text = "digraph G {\n"
    if not tree.frames:
        text += '"no tf data recieved"'  # the original's spelling, which tools look for
    for frame in _reports(tree):
        age = "" if now == LATEST else f"( {(now - frame.newest_stamp) / NANOSECONDS_PER_SECOND:.3f} sec old)"
        text += (
            f'"{frame.parent}" -> "{frame.name}"[label="'
            f"Broadcaster: {frame.broadcaster}\\n"
            f"Average rate: {frame.rate:.3f} Hz\\n"
            f"Most recent transform: {display(frame.newest_stamp)} {age}\\n"
            f'Buffer length: {frame.buffer_length:.3f} sec\\n"];\n'
        )
    recorded = "" if now == LATEST else f'"Recorded at time: {display(now)}"[ shape=plaintext ] ;\n '
    for name, cache in tree.frames.items():
        if (cache is None and now != LATEST) or (cache is not None and cache.newest() is None):
            text += (
                "edge [style=invis];\n"
                ' subgraph cluster_legend { style=bold; color=black; label ="view_frames Result";\n'
                f'{recorded}}}->"{name}";\n'
            )
    return text + "}"


def _reports(tree: FrameTree) -> Iterator[FrameReport]:
    for name, cache in tree.frames.items():
        if cache is None or (newest := cache.newest()) is None:
            continue
        yield FrameReport(
            name=name,
            parent=newest[1] or NO_PARENT,
            broadcaster=tree.authorities.get(name, "no recorded authority"),
            rate=_rate(cache),
            newest_stamp=cache.newest_stamp,
            oldest_stamp=cache.oldest_stamp,
        )


def _rate(cache: FrameCache) -> float:
    span = max(cache.newest_stamp - cache.oldest_stamp, SHORTEST_SPAN)
    return len(cache) * NANOSECONDS_PER_SECOND / span
