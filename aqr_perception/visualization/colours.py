"""What colours mean, in every picture and marker of this package."""

import cv2
import numpy as np
from numpy.typing import NDArray

MAP_LIMIT = 1.5
"""Largest value of a weight map."""

LIDAR_COLOUR = (255, 140, 0)
"""RGB of a detection that LiDAR evidence carries: orange."""

CAMERA_COLOUR = (0, 170, 255)
"""RGB of a detection that camera evidence carries: blue. The two differ for colour-blind eyes too."""


def modality_colour(lidar_weight: float, camera_weight: float) -> tuple[int, int, int]:
    """Return RGB from `CAMERA_COLOUR` to `LIDAR_COLOUR` by the modalities' parts of the weight; grey without any."""
    total = float(lidar_weight) + float(camera_weight)
    if not total > 0:
        return (128, 128, 128)
    part = float(lidar_weight) / total
    red, green, blue = (
        round(part * lidar + (1 - part) * camera) for lidar, camera in zip(LIDAR_COLOUR, CAMERA_COLOUR, strict=True)
    )
    return red, green, blue


def coloured(values: NDArray) -> NDArray[np.uint8]:
    """Return (..., 3) BGR of map values in [0, 1.5]: perceptually uniform, nearly black at 0."""
    levels = np.rint(np.asarray(values, dtype=np.float32) * (255 / MAP_LIMIT)).clip(0, 255).astype(np.uint8)
    return cv2.applyColorMap(levels.reshape(-1, 1), cv2.COLORMAP_INFERNO).reshape(*levels.shape, 3)
