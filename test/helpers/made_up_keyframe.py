# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A small keyframe folder: one camera, two points, a moving vehicle."""

import json
from pathlib import Path

import cv2
import numpy as np

from aqr_perception.geometry import invert, rigid_transform

SWEEP_NS = 1_500_000_000_500_000_000
IMAGE_NS = SWEEP_NS - 40_000_000
LIDAR_TO_EGO = rigid_transform([1.0, 0.0, 1.8], [0.0, 0.0, -0.7, 0.7])
CAMERA_TO_EGO = rigid_transform([1.7, 0.0, 1.5], [-0.5, 0.5, -0.5, 0.5])
EGO_AT_SWEEP = rigid_transform([400.0, 1200.0, 0.0], [0.0, 0.0, 0.3, 0.9])
EGO_AT_IMAGE = EGO_AT_SWEEP @ rigid_transform([-0.4, 0.01, 0.0], [0.0, 0.0, 0.001, 1.0])
LIDAR_TO_CAMERA = invert(CAMERA_TO_EGO) @ invert(EGO_AT_IMAGE) @ EGO_AT_SWEEP @ LIDAR_TO_EGO
POINTS = np.array([[10, 1, 0.5, 200, 3], [-4, 20, -1, 17, 31]], np.float32)


def write_keyframe(folder: Path) -> Path:
    """Write a keyframe with one camera into a new folder, and return it."""
    folder.mkdir()
    POINTS.tofile(folder / "lidar.bin")
    cv2.imwrite(str(folder / "front.jpg"), np.full((24, 40, 3), 90, np.uint8))
    description = {
        "stamp": SWEEP_NS / 1e9,
        "ego_to_global": EGO_AT_SWEEP.tolist(),
        "lidar": {"file": "lidar.bin", "stamp": SWEEP_NS / 1e9, "lidar_to_ego": LIDAR_TO_EGO.tolist()},
        "cameras": {
            "CAM_FRONT": {
                "file": "front.jpg",
                "width": 40,
                "height": 24,
                "stamp": IMAGE_NS / 1e9,
                "intrinsics": [[30.0, 0.0, 20.0], [0.0, 30.0, 12.0], [0.0, 0.0, 1.0]],
                "camera_to_ego": CAMERA_TO_EGO.tolist(),
                "lidar_to_camera": LIDAR_TO_CAMERA.tolist(),
            }
        },
    }
    (folder / "keyframe.json").write_text(json.dumps(description))
    return folder
