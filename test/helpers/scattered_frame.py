# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A labelled frame of scattered points and six objects."""

import numpy as np

from aqr_perception.data.corruption.lidar_corruption import points_in_box
from aqr_perception.frame import CameraView, Frame, GroundTruth, LabelledFrame

NAMES = ("front", "front_right", "back")
FORWARD = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])  # model frame -> optical axes


def labelled_frame(seed: int = 0, stamp_ns: int = 10**9, lidar: bool = True, cameras: int = 3) -> LabelledFrame:
    rng = np.random.default_rng(seed)
    boxes = np.zeros((6, 9), np.float32)
    boxes[:, :2] = rng.uniform(-30, 30, (6, 2))
    boxes[:, 3:6] = (4.0, 2.0, 1.5)
    boxes[:, 6] = rng.uniform(-3, 3, 6)
    points = np.zeros((1200, 5), np.float32)
    points[:, :3] = rng.uniform((-50, -50, -2), (50, 50, 3), (1200, 3))
    points[:600, :3] = np.repeat(boxes[:, :3], 100, axis=0) + rng.uniform(-0.5, 0.5, (600, 3))
    intrinsics = np.array([[40.0, 0, 28], [0, 40, 16], [0, 0, 1]])
    extrinsics = np.eye(4)
    extrinsics[:3, :3] = FORWARD
    views = tuple(
        CameraView(name, rng.integers(30, 220, (32, 56, 3), dtype=np.uint8), intrinsics, extrinsics)
        for name in NAMES[:cameras]
    )
    counts = np.array([len(points_in_box(points, box)) for box in boxes])
    truth = GroundTruth(boxes, np.zeros(6, np.int64), np.arange(6), counts, np.ones((6, cameras), np.float32))
    return LabelledFrame(Frame(stamp_ns, points if lidar else None, views), truth)
