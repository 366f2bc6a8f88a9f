# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A pinhole camera for tests of projection."""

import math

import torch
from torch import Tensor

FOCAL = 270.0
SIZE = (128, 352)
"""Height and width of the images in pixels."""
HEIGHT = 0.3
"""Height of the camera above the model frame's origin in metres."""


def looking_along(yaw: float) -> Tensor:
    """Return (4, 4), model frame -> pixels, of a camera at (0.5, 0, `HEIGHT`) with a yaw in radians."""
    cosine, sine = math.cos(yaw), math.sin(yaw)
    to_camera = torch.tensor([[sine, -cosine, 0.0], [0.0, 0.0, -1.0], [cosine, sine, 0.0]])
    pinhole = torch.tensor([[FOCAL, 0.0, 176.0], [0.0, FOCAL, 50.0], [0.0, 0.0, 1.0]])
    projection = torch.eye(4)
    projection[:3, :3] = pinhole @ to_camera
    projection[:3, 3] = -pinhole @ to_camera @ torch.tensor([0.5, 0.0, HEIGHT])
    return projection
