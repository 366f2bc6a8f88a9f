# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The TF tree of a recording: frames, static and moving transforms, their rates and gaps, and faults of the tree."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aqr_perception.bags.poses import stamp_to_ns
from aqr_perception.inspection.finding import Finding, finding
from aqr_perception.inspection.observations import HeardTransform
from aqr_perception.inspection.topic_rates import TopicRate, topic_rate

_LONGEST_GAP = 0.5
"""Seconds between two transforms of a moving frame, over which interpolation is inaccurate."""
_MOST_NAMED = 6


@dataclass(frozen=True)
class Edge:
    """Transforms of one frame.

    Attributes:
        rate: of the stamps of a moving frame; None for a static one.
        first_ns, last_ns: first and last stamp.
        delay: median time from the stamp to the recording in seconds; NaN for static ones.
    """

    parent: str
    child: str
    static: bool
    rate: TopicRate | None = None
    first_ns: int = 0
    last_ns: int = 0
    delay: float = math.nan


@dataclass(frozen=True)
class TfTree:
    """All transforms.

    Attributes:
        edges: one for each child frame, by name.
        usable: the transforms with finite numbers and a rotation, for lookups.
    """

    edges: tuple[Edge, ...]
    usable: tuple[HeardTransform, ...]
    findings: tuple[Finding, ...]

    @property
    def frames(self) -> frozenset[str]:
        return frozenset(name for edge in self.edges for name in (edge.parent, edge.child))

    @property
    def roots(self) -> tuple[str, ...]:
        """Frames without a parent, by name; of a loop none."""
        children = {edge.child for edge in self.edges}
        return tuple(sorted(self.frames - children))

    def parent(self, frame: str) -> Edge | None:
        return next((edge for edge in self.edges if edge.child == frame), None)

    def ancestors(self, frame: str) -> list[Edge]:
        """Return the edges from a frame up to its root; a loop ends where it closes."""
        edges: list[Edge] = []
        by_child = {edge.child: edge for edge in self.edges}
        seen = {frame}
        while (edge := by_child.get(frame)) is not None:
            edges.append(edge)
            frame = edge.parent
            if frame in seen:
                break
            seen.add(frame)
        return edges

    def root(self, frame: str) -> str:
        edges = self.ancestors(frame)
        return edges[-1].parent if edges else frame

    def connected(self, one: str, other: str) -> bool:
        """Return whether transforms lead from one frame to another."""
        return one == other or (bool({one, other} <= self.frames) and self.root(one) == self.root(other))

    def rigid(self, frame: str) -> frozenset[str]:
        """Return the frames that static transforms connect with a frame, and itself."""
        neighbours = defaultdict(set)
        for edge in self.edges:
            if edge.static:
                neighbours[edge.parent].add(edge.child)
                neighbours[edge.child].add(edge.parent)
        found, new = {frame}, [frame]
        while new:
            new = [name for name in neighbours[new.pop()] if name not in found] + new
            found.update(new)
        return frozenset(found)


def tf_tree(transforms: Sequence[HeardTransform], parts: Sequence[tuple[int, int]] = ()) -> TfTree:
    """Return the tree of all transforms heard.

    Args:
        parts: begin and end of the parts of the recording that were read.
    """
    findings: list[Finding] = []
    usable = [one for one in transforms if _is_usable(one.message)]
    broken = Counter(one.message.child_frame_id for one in transforms if not _is_usable(one.message))
    for child, count in broken.items():
        found, needed = f"{count} transforms without finite numbers or without a rotation", "a unit quaternion, metres"
        remedy = "check the publisher; the node cannot use them"
        findings.append(finding("odd", "/tf", f"broken transforms of {child!r}", found, needed, remedy))
    by_child: dict[str, list[HeardTransform]] = defaultdict(list)
    for one in usable:
        by_child[_name(one.message.child_frame_id)].append(one)
    edges = []
    for child, entries in sorted(by_child.items()):
        edges.append(_edge(child, entries, parts))
        findings += _edge_findings(edges[-1], entries)
    tree = TfTree(tuple(edges), tuple(usable), ())
    findings += _loops(tree)
    return TfTree(tree.edges, tree.usable, tuple(findings))


def _edge(child: str, entries: Sequence[HeardTransform], parts: Sequence[tuple[int, int]]) -> Edge:
    parent = _name(entries[-1].message.header.frame_id)
    moving = [one for one in entries if not one.static]
    if not moving:
        return Edge(parent, child, True)
    stamps = [stamp_to_ns(one.message.header.stamp) for one in moving]
    recorded = [one.recorded_ns for one in moving]
    delays = sorted((at - stamp) / 1e9 for stamp, at in zip(stamps, recorded, strict=True))
    rate = topic_rate(recorded, parts)
    return Edge(parent, child, False, rate, min(stamps), max(stamps), delays[len(delays) // 2])


def _edge_findings(edge: Edge, entries: Sequence[HeardTransform]) -> Iterable[Finding]:
    parents = Counter(_name(one.message.header.frame_id) for one in entries)
    if len(parents) > 1:
        names = ", ".join(f"{name!r} ({count} times)" for name, count in parents.most_common())
        yield finding(
            "odd", "/tf", f"frame {edge.child!r} with several parents", names, "one parent for each frame",
            "stop all publishers of this frame but one; tf2 jumps between them",
        )  # fmt: skip
    kinds = {one.static for one in entries}
    if len(kinds) > 1:
        yield finding(
            "odd", "/tf", f"frame {edge.child!r} static and moving", "transforms on /tf and on /tf_static",
            "one of them", "stop one of the publishers",
        )  # fmt: skip
    if edge.rate is not None and edge.rate.longest_gap > max(_LONGEST_GAP, 3 * edge.rate.period):
        yield finding(
            "odd", "/tf", f"gap in the motion of {edge.child!r}",
            f"{edge.rate.longest_gap:.2f} s without {edge.parent} -> {edge.child} (usually {edge.rate.period:.3f} s)",
            f"at most {_LONGEST_GAP} s", "check the publisher; in the gap, motion is interpolated or frames are lost",
        )  # fmt: skip


def _loops(tree: TfTree) -> Iterable[Finding]:
    for edge in tree.edges:
        ancestors = tree.ancestors(edge.child)
        if ancestors and ancestors[-1].parent in {one.child for one in ancestors}:
            names = " -> ".join(one.child for one in ancestors[:_MOST_NAMED])
            yield finding("odd", "/tf", "loop of transforms", names, "a tree", "remove one of the transforms")
            return


def tree_findings(tree: TfTree, sensors: Iterable[tuple[str, str]]) -> list[Finding]:
    """Return what keeps sensors apart in TF.

    Args:
        sensors: topic and TF frame of each sensor, the LiDAR or the model frame first.
    """
    (first_topic, first), *others = list(sensors) or [("", "")]
    findings = []
    for topic, frame in others:
        if frame and first and not tree.connected(first, frame):
            trees = (
                f"{frame!r} is in the tree of {tree.root(frame)!r}"
                if frame in tree.frames
                else f"{frame!r} is not in TF"
            )
            if first not in tree.frames:
                trees += (
                    f", nor is {first!r} ({first_topic})" if frame not in tree.frames else f"; {first!r} is not in TF"
                )
            else:
                trees += f", {first!r} ({first_topic}) in that of {tree.root(first)!r}"
            findings.append(
                finding(
                    "loses", topic, "no transform", trees, f"{first} -> {frame} on /tf or /tf_static",
                    "record /tf_static; publish the sensor's place (robot_state_publisher)",
                )
            )  # fmt: skip
    return findings


def _is_usable(entry: Any) -> bool:
    rotation, translation = entry.transform.rotation, entry.transform.translation
    values = [rotation.x, rotation.y, rotation.z, rotation.w]
    finite = all(map(math.isfinite, [*values, translation.x, translation.y, translation.z]))
    return finite and 0.5 < math.sqrt(sum(value * value for value in values)) < 2.0 and bool(entry.child_frame_id)


def _name(frame: str) -> str:
    return str(frame).removeprefix("/")
