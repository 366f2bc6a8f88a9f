# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Six cameras around a vehicle in a frame with x forward."""

import torch
from torch import Tensor

AZIMUTHS = (0.0, -55.0, 55.0, 180.0, 108.0, -110.0)
SIZE = (64, 176)
"""Height and width of the images in pixels."""


def projections(
    batch: int = 1, dtype: torch.dtype = torch.float32, size: tuple[int, int] = SIZE, focal: float = 139.0
) -> Tensor:
    """Return (B, 6, 4, 4), vehicle -> pixels of images with a height and width, for a focal length in pixels."""
    height, width = size
    matrices = torch.zeros(batch, len(AZIMUTHS), 4, 4, dtype=dtype)
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=dtype)
    for view, azimuth in enumerate(torch.tensor(AZIMUTHS, dtype=dtype).deg2rad()):
        right = torch.stack((azimuth.sin(), -azimuth.cos(), 0 * azimuth))
        forward = torch.stack((azimuth.cos(), azimuth.sin(), 0 * azimuth))
        down = torch.tensor([0.0, 0.0, -1.0], dtype=dtype)
        rotation = torch.stack((right, down, forward))
        position = forward + torch.tensor([0.0, 0.0, 1.5], dtype=dtype)
        matrices[:, view, :3, :3] = intrinsics @ rotation
        matrices[:, view, :3, 3] = -intrinsics @ rotation @ position
    matrices[..., 3, 3] = 1.0
    return matrices


def pose(x: float, y: float, yaw: float) -> Tensor:
    """Return (4, 4) float64, vehicle -> world; metres and radians."""
    angle = torch.tensor(yaw, dtype=torch.float64)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:2, :2] = torch.stack((torch.stack((angle.cos(), -angle.sin())), torch.stack((angle.sin(), angle.cos()))))
    matrix[:2, 3] = torch.tensor([x, y], dtype=torch.float64)
    return matrix


def images(batch: int = 1, seed: int = 0, size: tuple[int, int] = SIZE) -> Tensor:
    """Return (B, 6, 3, H, W) of noise."""
    return torch.randn(batch, len(AZIMUTHS), 3, *size, generator=torch.Generator().manual_seed(seed))
