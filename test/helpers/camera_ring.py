"""A ring of cameras around a vehicle, and the vehicle's poses and history."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from aqr_perception.models.detection_model import History

AZIMUTHS = (0.0, -55.0, 55.0, 180.0, 108.0, -110.0)
"""Of the six cameras' optical axes in degrees, counter-clockwise from the vehicle frame's +x, which is forward."""
SIZE = (64, 176)
"""Height and width of the images in pixels."""


def projections(
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    *,
    azimuths: Sequence[float] = AZIMUTHS,
    focal: float = 139.0,
    centre: tuple[float, float] = (88.0, 32.0),
) -> Tensor:
    """Return (B, V, 4, 4), vehicle -> pixels, of cameras 1 m from the origin and 1.5 m above it.

    Args:
        azimuths: of the optical axes in degrees.
        focal: focal length in pixels.
        centre: x and y of the principal point in pixels.
    """
    matrices = torch.zeros(batch, len(azimuths), 4, 4, dtype=dtype)
    intrinsics = torch.tensor([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]], dtype=dtype)
    for view, azimuth in enumerate(torch.tensor(azimuths, dtype=dtype).deg2rad()):
        right = torch.stack((azimuth.sin(), -azimuth.cos(), 0 * azimuth))
        forward = torch.stack((azimuth.cos(), azimuth.sin(), 0 * azimuth))
        down = torch.tensor([0.0, 0.0, -1.0], dtype=dtype)
        rotation = torch.stack((right, down, forward))
        position = forward + torch.tensor([0.0, 0.0, 1.5], dtype=dtype)
        matrices[:, view, :3, :3] = intrinsics @ rotation
        matrices[:, view, :3, 3] = -intrinsics @ rotation @ position
    matrices[..., 3, 3] = 1.0
    return matrices


def images(batch: int = 1, seed: int = 0, size: tuple[int, int] = SIZE) -> Tensor:
    """Return (B, 6, 3, H, W) of noise."""
    return torch.randn(batch, len(AZIMUTHS), 3, *size, generator=torch.Generator().manual_seed(seed))


def pose(x: float, y: float, yaw: float) -> Tensor:
    """Return (4, 4) float64, vehicle -> world; metres and radians."""
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:2, :2] = torch.tensor([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    matrix[:2, 3] = torch.tensor([x, y], dtype=torch.float64)
    return matrix


def history(state: object, before: Tensor, now: Tensor, seconds: float = 0.5) -> History:
    """Return the history of a vehicle that moved from one pose to another."""
    return History(state, (torch.linalg.inv(now) @ before).float(), now.float(), seconds)
