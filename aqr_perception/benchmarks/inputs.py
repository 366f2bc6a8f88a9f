# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Frames for measurements: a made-up one of the size of a nuScenes frame, and simulated ones with objects."""

import logging
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from aqr_perception.frame import CameraView, Frame
from aqr_perception.geometry import rigid_transform

_log = logging.getLogger(__name__)


def simulated_frames(count: int = 8) -> tuple[Frame, ...]:
    """Return frames of the world of training, in which detections of variants are compared; none without simulator.

    One frame is too few: where bf16 moved one box in twenty, all boxes of single frames agreed.
    """
    try:
        from aqr_perception.data.sources.simulated import TRAINING_WORLD, SimulatedDataset

        frames = SimulatedDataset(range(count), world=TRAINING_WORLD, sweep_interval=0.4)
        return tuple(frames[index].frame for index in tqdm(range(count), desc="simulate", leave=False))
    except ModuleNotFoundError as error:
        _log.warning(
            "boxes are not compared: the simulator needs %s; run: pip install 'aqr_perception[simulate]'", error.name
        )
        return ()


def made_up_frame(seed: int = 0) -> Frame:
    """Return six 1600 x 900 noise images and a 32-beam sweep of a ground plane with walls, determined by the seed."""
    random = np.random.default_rng(seed)
    views = []
    for index in range(6):
        coarse = random.integers(0, 255, (9, 16, 3), dtype=np.uint8)
        yaw = -index * np.pi / 3
        # Columns of the rotation: the camera's right, down and forward axes in the LiDAR frame.
        right, forward = np.array([np.cos(yaw), np.sin(yaw), 0]), np.array([-np.sin(yaw), np.cos(yaw), 0])
        extrinsics = np.eye(4)
        extrinsics[:3, :3] = np.stack((right, [0, 0, -1], forward))
        intrinsics = np.array([[1266.0, 0, 800], [0, 1266, 450], [0, 0, 1]])
        image: NDArray[Any] = cv2.resize(coarse, (1600, 900), interpolation=cv2.INTER_CUBIC)
        views.append(
            CameraView(f"camera_{index}", image, intrinsics, extrinsics @ rigid_transform([0, 0, 0.3], [0, 0, 0, 1]))
        )
    azimuth, elevation = np.meshgrid(np.linspace(-np.pi, np.pi, 1084), np.radians(np.linspace(-30, 10, 32)))
    walls = 12 + 25 * np.abs(np.sin(3 * azimuth)) + random.normal(0, 0.02, azimuth.shape)
    ground = np.where(elevation < 0, 1.84 / np.maximum(np.sin(-elevation), 1e-3), np.inf)
    distance = np.minimum(walls / np.cos(elevation), ground)
    points = np.stack(
        (
            distance * np.cos(elevation) * np.cos(azimuth),
            distance * np.cos(elevation) * np.sin(azimuth),
            distance * np.sin(elevation),
            random.uniform(0, 255, distance.shape),
            np.zeros_like(distance),
        ),
        axis=-1,
    )
    return Frame(0, points.reshape(-1, 5).astype(np.float32), tuple(views))
