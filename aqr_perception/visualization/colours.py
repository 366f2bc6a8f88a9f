"""Colours of weights and modalities in all pictures and markers."""

import cv2
import numpy as np
from numpy.typing import NDArray

MAP_LIMIT = 1.5
"""Largest value of a weight map."""

LIDAR_COLOUR = (255, 140, 0)
"""RGB of a detection supported by the LiDAR: orange."""

CAMERA_COLOUR = (0, 170, 255)
"""RGB of a detection supported by cameras: blue. Colour-blind people can tell it from orange."""


def modality_colour(lidar_weight: float, camera_weight: float) -> tuple[int, int, int]:
    """Return the RGB mix of `LIDAR_COLOUR` and `CAMERA_COLOUR` in proportion to the weights; grey if both are 0."""
    total = float(lidar_weight) + float(camera_weight)
    if not total > 0:
        return (128, 128, 128)
    share = float(lidar_weight) / total
    red, green, blue = (
        round(share * lidar + (1 - share) * camera) for lidar, camera in zip(LIDAR_COLOUR, CAMERA_COLOUR, strict=True)
    )
    return red, green, blue


def heat_colours(values: NDArray[np.number]) -> NDArray[np.uint8]:
    """Return (..., 3) BGR of map values in [0, 1.5], perceptually uniform from nearly black to yellow."""
    levels = np.rint(np.asarray(values, dtype=np.float32) * (255 / MAP_LIMIT)).clip(0, 255).astype(np.uint8)
    colours: NDArray[np.uint8] = cv2.applyColorMap(levels.reshape(-1, 1), cv2.COLORMAP_INFERNO)
    return colours.reshape(*levels.shape, 3)
