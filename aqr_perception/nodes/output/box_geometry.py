# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Poses and vectors of many boxes as messages, in the output frame."""

from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from numpy.typing import NDArray
from tf_transformations import quaternion_from_matrix

from aqr_perception.geometry import transform_points


def poses(boxes: NDArray[np.floating], to_output: NDArray[np.float64]) -> list[Pose]:
    """Return the poses of boxes (N, 9) in the output frame: centre, and orientation with +x along the length.

    Args:
        to_output: (4, 4), the boxes' frame -> output frame.
    """
    precise = boxes.astype(np.float64)
    centres = transform_points(to_output, precise)
    orientations = _turned(quaternion_from_matrix(to_output), precise[:, 6])
    return [
        Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))
        for (x, y, z), (qx, qy, qz, qw) in zip(centres.tolist(), orientations.tolist(), strict=True)
    ]


def vectors(values: NDArray[np.floating]) -> list[Vector3]:
    """Return the rows of (N, 3) values."""
    return [Vector3(x=x, y=y, z=z) for x, y, z in values.tolist()]


def _turned(rotation: Sequence[float], yaws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (N, 4) products of a quaternion (x, y, z, w) and of turns about z in radians, (N,)."""
    x, y, z, w = rotation
    sin, cos = np.sin(yaws / 2), np.cos(yaws / 2)
    return np.stack((x * cos + y * sin, y * cos - x * sin, w * sin + z * cos, w * cos - z * sin), axis=1)
