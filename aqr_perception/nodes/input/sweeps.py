# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Accumulation of LiDAR sweeps."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aqr_perception.decoding.message_error import TransformError
from aqr_perception.geometry import transform_points
from aqr_perception.nodes.input.transforms import FrameTransforms


class SweepBuffer:
    """Decoded sweeps of one LiDAR, to be moved to the time of a frame."""

    def __init__(self) -> None:
        self._sweeps: dict[int, tuple[str, NDArray[np.float32]]] = {}

    def __len__(self) -> int:
        return len(self._sweeps)

    def __contains__(self, stamp_ns: int) -> bool:
        return stamp_ns in self._sweeps

    def add(self, stamp_ns: int, frame_id: str, points: NDArray[np.float32]) -> None:
        """Add a sweep, (N, 4) x, y, z in metres in `frame_id`, and intensity. It replaces one with the same stamp."""
        self._sweeps[stamp_ns] = (frame_id, points)

    def is_empty(self, stamp_ns: int) -> bool:
        """Whether the sweep of a stamp has no point."""
        return len(self._sweeps[stamp_ns][1]) == 0

    def keep_between(self, oldest_ns: int, newest_ns: int) -> None:
        """Drop the sweeps before and after a span of time."""
        self._sweeps = {stamp: sweep for stamp, sweep in self._sweeps.items() if oldest_ns <= stamp <= newest_ns}

    def moved(
        self, sweeps_ns: Sequence[int], model_frame: str, stamp_ns: int, transforms: FrameTransforms
    ) -> tuple[list[NDArray[np.float32]], list[str]]:
        """Return sweeps in the model frame at `stamp_ns`.

        Args:
            sweeps_ns: stamps of the sweeps, newest first; those that are not in the buffer are left out.

        Returns:
            for each sweep that has points, an array (N, 5) float32: x, y, z in metres, intensity, and the sweep's age
            at `stamp_ns` in seconds; and a warning for each past sweep that is left out because its transform is
            missing.

        Raises:
            TransformError: the newest sweep cannot be transformed.
        """
        clouds: list[NDArray[np.float32]] = []
        warnings: list[str] = []
        for index, sweep_ns in enumerate(sweeps_ns):
            if sweep_ns not in self._sweeps:
                continue
            frame_id, points = self._sweeps[sweep_ns]
            age = (stamp_ns - sweep_ns) / 1e9
            try:
                clouds.append(_moved(points, frame_id, sweep_ns, model_frame, stamp_ns, age, transforms))
            except TransformError as error:
                if index == 0:
                    raise
                warnings.append(f"the sweep {age:.3f} s ago is left out: {error}")
        return [cloud for cloud in clouds if len(cloud)], warnings


def joined(clouds: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the points of sweeps (N, 5), each with points of one age, in one array, the newest first.

    Voxels average their first points, so the newest sweeps of all LiDARs precede all past ones.
    """
    ordered = sorted(clouds, key=lambda cloud: float(cloud[0, 4]))
    return np.concatenate(ordered) if ordered else np.zeros((0, 5), np.float32)


def _moved(
    points: NDArray[np.float32],
    frame_id: str,
    sweep_ns: int,
    model_frame: str,
    stamp_ns: int,
    age: float,
    transforms: FrameTransforms,
) -> NDArray[np.float32]:
    moved = np.empty((len(points), 5), dtype=np.float32)
    moved[:, :4] = points
    moved[:, 4] = age
    if (frame_id, sweep_ns) != (model_frame, stamp_ns):
        to_model = transforms.lookup(model_frame, stamp_ns, frame_id, sweep_ns)
        moved[:, :3] = transform_points(to_model, points)
    return moved
