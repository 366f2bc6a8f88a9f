# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Transforms between the TF frames of a bag, from its /tf and /tf_static."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqr_perception.bags.errors import BagError
from aqr_perception.geometry import interpolate, invert, rigid_transform

_LONGEST_EXTRAPOLATION = 0.2
"""Seconds outside a recorded motion in which its nearest transform still holds."""


class _Motion:
    """A transform that moves: child frame -> parent frame at recorded times."""

    def __init__(self, matrices: dict[int, NDArray[np.float64]]) -> None:
        stamps = sorted(matrices)
        self.stamps = np.array(stamps, np.int64)
        self._matrices = np.stack([matrices[stamp] for stamp in stamps])

    def at(self, stamp_ns: int) -> NDArray[np.float64]:
        """Return the (4, 4) transform at a time, interpolated; outside the recording, the nearest one."""
        stamp_ns = int(np.clip(stamp_ns, self.stamps[0], self.stamps[-1]))
        after = int(np.searchsorted(self.stamps, stamp_ns))
        if self.stamps[after] == stamp_ns:
            exact: NDArray[np.float64] = self._matrices[after]
            return exact
        begin, end = (int(stamp) for stamp in self.stamps[after - 1 : after + 1])
        return interpolate(self._matrices[after - 1], self._matrices[after], (stamp_ns - begin) / (end - begin))

    def distance(self, stamp_ns: int) -> float:
        """Return the seconds between a time and the recording; 0 inside it."""
        return max(int(self.stamps[0]) - stamp_ns, stamp_ns - int(self.stamps[-1]), 0) / 1e9


class TransformTree:
    """The transforms of a bag, moving and static, at any recorded time.

    Args:
        moving, static: TFMessages of /tf and /tf_static.
        source: name of the bag, for errors.

    Raises:
        BagError: a transform has numbers that are not finite, or a rotation that is none.
    """

    def __init__(self, moving: Iterable[Any], static: Iterable[Any], source: str) -> None:
        self._source = source
        self._static: dict[str, tuple[str, NDArray[np.float64]]] = {}
        for message in static:
            for entry in message.transforms:
                self._static[_name(entry.child_frame_id)] = (_name(entry.header.frame_id), self._matrix(entry))
        by_child: dict[str, dict[int, NDArray[np.float64]]] = defaultdict(dict)
        self._parents: dict[str, str] = {}
        for message in moving:
            for entry in message.transforms:
                child = _name(entry.child_frame_id)
                self._parents[child] = _name(entry.header.frame_id)
                by_child[child][stamp_to_ns(entry.header.stamp)] = self._matrix(entry)
        self._moving = {child: _Motion(matrices) for child, matrices in by_child.items()}

    @property
    def frames(self) -> frozenset[str]:
        """The names of all frames."""
        parents = {parent for parent, _ in self._static.values()} | set(self._parents.values())
        return frozenset({*self._static, *self._parents, *parents})

    def lookup(
        self, target_frame: str, target_ns: int, source_frame: str, source_ns: int, fixed_frame: str = ""
    ) -> NDArray[np.float64]:
        """Return the (4, 4) matrix that moves points from the source frame, at its time, to the target frame.

        Args:
            fixed_frame: frame in which the motion between the two times is known; empty: the motion is ignored, and the
                target's time holds for both.

        Raises:
            BagError: TF does not connect the frames at these times.
        """
        target, source, fixed = _name(target_frame), _name(source_frame), _name(fixed_frame)
        if not fixed or target_ns == source_ns:
            return self._between(target, source, target_ns)
        return self._between(target, fixed, target_ns) @ self._between(fixed, source, source_ns)

    def _between(self, target: str, source: str, stamp_ns: int) -> NDArray[np.float64]:
        """Return target <- source at one time."""
        if target == source:
            return np.eye(4)
        up, down = self._chain(source, stamp_ns, target), self._chain(target, stamp_ns, source)
        shared = next((frame for frame in up if frame in down), None)
        if shared is None:
            known = ", ".join(sorted(self.frames)) or "none"
            raise BagError(
                f"{self._source}: found no transform {source} -> {target} on /tf and /tf_static (frames: {known}), "
                "needed the place of each sensor; record /tf and /tf_static"
            )
        for frame in (*list(up)[: list(up).index(shared)], *list(down)[: list(down).index(shared)]):
            motion = self._moving.get(frame)
            if motion is not None and motion.distance(stamp_ns) > _LONGEST_EXTRAPOLATION:
                first, last = motion.stamps[0] / 1e9, motion.stamps[-1] / 1e9
                raise BagError(
                    f"{self._source}: found the motion {self._parents[frame]} -> {frame} on /tf from {first:.3f} to "
                    f"{last:.3f} s, needed it at {stamp_ns / 1e9:.3f} s; record /tf for as long as the sensors"
                )
        return invert(down[shared]) @ up[shared]

    def _chain(self, frame: str, stamp_ns: int, stop: str) -> dict[str, NDArray[np.float64]]:
        """Return the frame's transforms to itself and to its ancestors, up to a frame."""
        matrices = {frame: np.eye(4)}
        while frame != stop:
            matrix = matrices[frame]
            if frame in self._moving:
                parent, step = self._parents[frame], self._moving[frame].at(stamp_ns)
            elif frame in self._static:
                parent, step = self._static[frame]
            else:
                break
            if parent in matrices:
                raise BagError(f"{self._source}: found a loop of transforms at {parent}, needed a tree; check /tf")
            matrices[parent] = step @ matrix
            frame = parent
        return matrices

    def _matrix(self, entry: Any) -> NDArray[np.float64]:
        rotation, translation = entry.transform.rotation, entry.transform.translation
        numbers = np.array([getattr(rotation, axis) for axis in "xyzw"] + [getattr(translation, a) for a in "xyz"])
        if not np.isfinite(numbers).all() or not 0.5 < float(np.linalg.norm(numbers[:4])) < 2.0:
            raise BagError(
                f"{self._source}: found the transform {entry.header.frame_id} -> {entry.child_frame_id} with rotation "
                f"{numbers[:4].tolist()} and translation {numbers[4:].tolist()}, needed a unit quaternion and metres"
            )
        return matrix(entry.transform)


def stamp_to_ns(stamp: Any) -> int:
    """Return a builtin_interfaces/Time in nanoseconds."""
    return int(stamp.sec * 1_000_000_000 + stamp.nanosec)


def matrix(transform: Any) -> NDArray[np.float64]:
    """Return a geometry_msgs/Transform as a (4, 4) matrix, child frame -> parent frame."""
    translation, rotation = transform.translation, transform.rotation
    quaternion = (rotation.x, rotation.y, rotation.z, rotation.w)
    return rigid_transform((translation.x, translation.y, translation.z), quaternion)


def _name(frame: str) -> str:
    return str(frame).removeprefix("/")
