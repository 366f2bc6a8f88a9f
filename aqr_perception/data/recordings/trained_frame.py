# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Place of a model's training frame on a recorded vehicle: its height above the ground and its axes."""

from collections.abc import Sequence

import numpy as np

from aqr_perception.data.ground import ground_height
from aqr_perception.data.recordings.recorded_data import Matrix, RecordedSweep
from aqr_perception.frame import FramePlacement
from aqr_perception.geometry import transform_points

_SWEEPS = 5
_MOST_POINTS = 60_000


def ground_below(sweeps: Sequence[RecordedSweep]) -> float | None:
    """Return the height in metres of the vehicle frame's origin above the ground; None without clear ground.

    It is the median over the first sweeps with clear ground.
    """
    heights = []
    for sweep in sweeps[:_SWEEPS]:
        points = sweep.read()
        points = points[np.isfinite(points).all(axis=1)][:: max(1, len(points) // _MOST_POINTS)]
        in_vehicle = transform_points(sweep.lidar_to_vehicle, points).astype(np.float32)
        height = ground_height(in_vehicle)
        if height is not None:
            heights.append(height)
    return float(np.median(heights)) if heights else None


def trained_frame(height: float, placement: FramePlacement, lidar_to_vehicle: Matrix) -> Matrix:
    """Return the (4, 4) pose of a model's frame in the vehicle's frame: above the LiDAR's place, as in the training.

    Args:
        height: of the vehicle frame's origin above the ground, in metres.
    """
    pose = np.eye(4)
    pose[:2, 3] = lidar_to_vehicle[:2, 3]
    pose[2, 3] = placement.height - height
    if placement.forward == "y":  # x right, y forward
        pose[:3, :3] = [[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    return pose
