# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A labelled frame scanned by a LiDAR of 32 beams, with pictures of noise."""

import numpy as np

from aqr_perception.data.corruption.lidar_corruption import points_in_box
from aqr_perception.frame import CameraView, Frame, GroundTruth, LabelledFrame

NAMES = ("front", "front_right", "back_right", "back", "back_left", "front_left")


def labelled_frame(seed: int = 0, objects: int = 7, lidar: bool = True, cameras: int = 6) -> LabelledFrame:
    """Return a frame whose front camera looks along +y, as in nuScenes' LiDAR frame."""
    rng = np.random.default_rng(seed)
    elevation, azimuth = np.meshgrid(np.radians(np.linspace(-30.67, 10.67, 32)), np.linspace(-np.pi, np.pi, 120))
    reach = np.where(elevation < 0, np.minimum(30, -1.84 / np.sin(np.minimum(elevation, -1e-3))), 30).ravel()
    elevation, azimuth = elevation.ravel(), azimuth.ravel()
    points = np.zeros((len(reach), 5), np.float32)
    points[:, 0] = reach * np.cos(elevation) * np.cos(azimuth)
    points[:, 1] = reach * np.cos(elevation) * np.sin(azimuth)
    points[:, 2] = reach * np.sin(elevation)
    boxes = np.zeros((objects, 9), np.float32)
    angles = 2 * np.pi * np.arange(objects) / max(objects, 1)
    boxes[:, 0], boxes[:, 1], boxes[:, 2] = 12 * np.cos(angles), 12 * np.sin(angles), -1.0
    boxes[:, 3:6] = (4.0, 3.0, 2.0)
    front = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    views = tuple(
        CameraView(name, rng.integers(100, 255, (32, 56, 3), dtype=np.uint8), np.eye(3), front)
        for name in NAMES[:cameras]
    )
    counts = np.array([len(points_in_box(points, box)) for box in boxes], np.int64)
    kinds = np.zeros(objects, np.int64)
    truth = GroundTruth(boxes, kinds, kinds, counts, np.ones((objects, cameras), np.float32))
    return LabelledFrame(Frame(10**9 + seed, points if lidar else None, views), truth)


def points_of(labelled: LabelledFrame) -> np.ndarray:
    assert labelled.frame.points is not None
    return labelled.frame.points
