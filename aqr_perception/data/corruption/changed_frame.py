# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Labelled frames with other points or cameras, and ground truth that fits them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.corruption.lidar_corruption import points_in_box
from aqr_perception.frame import CameraView, LabelledFrame


def with_points(labelled: LabelledFrame, points: NDArray[np.float32] | None) -> LabelledFrame:
    """Return a frame with fewer LiDAR points, and with reduced point counts of the boxes."""
    truth, left = labelled.truth, np.zeros(len(labelled.truth), np.int64)
    if points is not None:
        left[:] = [len(points_in_box(points, box)) for box in truth.boxes]
    # Counts may cover only the newest sweep (nuScenes), so they must not grow.
    truth = dataclasses.replace(truth, lidar_points=np.minimum(truth.lidar_points, left))
    return dataclasses.replace(labelled, frame=dataclasses.replace(labelled.frame, points=points), truth=truth)


def with_moved_points(labelled: LabelledFrame, points: NDArray[np.float32]) -> LabelledFrame:
    """Return a frame whose LiDAR sees the same objects at other places: the boxes keep their point counts."""
    return dataclasses.replace(labelled, frame=dataclasses.replace(labelled.frame, points=points))


def with_views(labelled: LabelledFrame, views: Sequence[CameraView]) -> LabelledFrame:
    """Return a frame with some of its cameras, possibly modified, in the frame's order."""
    kept = {view.name for view in views}
    columns = [index for index, view in enumerate(labelled.frame.cameras) if view.name in kept]
    truth = dataclasses.replace(labelled.truth, visibility=labelled.truth.visibility[:, columns])
    return dataclasses.replace(labelled, frame=dataclasses.replace(labelled.frame, cameras=tuple(views)), truth=truth)
