# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A made-up batch of camera images and point clouds for small fusion models."""

from typing import NamedTuple

import torch
from torch import Tensor

SENSORS = """\
point_range: [-12.8, -12.8, -5.0, 12.8, 12.8, 3.0]
image: {size: [96, 64], backbone: resnet18, width: 8}
points:
  voxel_size: [0.4, 0.4, 0.25]
  grid: [64, 64, 32]
  encoder_channels: [8, 8, 8, 8]
  encoder_output: 8
  backbone_channels: [8, 8]
  backbone_layers: [1, 1]
  neck_channels: 8
decoder: {channels: 32, queries: 60, layers: 3, heads: 4, feedforward: 32, depths: 8}
"""
"""Entries of a small preset whose model takes the batch."""


class Sensed(NamedTuple):
    """A batch as `FusionModel.forward` takes it."""

    images: Tensor
    lidar_to_image: Tensor
    points: list[Tensor]

    def of(self, sample: int) -> "Sensed":
        """Return one sample as a batch."""
        one = slice(sample, sample + 1)
        return Sensed(self.images[one], self.lidar_to_image[one], self.points[one])


def sensed_batch() -> Sensed:
    """Return three samples: a ring of three cameras with gaps between them, and points all around."""
    random = torch.Generator().manual_seed(0)
    lidar_to_image = torch.zeros(3, 3, 4, 4)
    for view in range(3):
        yaw = torch.tensor(-view * 2 * torch.pi / 3)
        right = torch.stack((yaw.cos(), yaw.sin(), torch.tensor(0.0)))
        forward = torch.stack((-yaw.sin(), yaw.cos(), torch.tensor(0.0)))
        intrinsics = torch.tensor([[40.0, 0, 48], [0, 40, 32], [0, 0, 1]])
        rotation = intrinsics @ torch.stack((right, torch.tensor([0.0, 0.0, -1.0]), forward))
        lidar_to_image[:, view, :3, :3] = rotation
        lidar_to_image[:, view, :3, 3] = rotation @ torch.tensor([0.1, 0.2, -0.5])
        lidar_to_image[:, view, 3, 3] = 1.0
    span, lower = torch.tensor([25.0, 25, 6, 255, 0.5]), torch.tensor([-12.5, -12.5, -4, 0, 0])
    points = [torch.rand(400, 5, generator=random) * span + lower for _ in range(3)]
    return Sensed(torch.randn(3, 3, 3, 64, 96, generator=random), lidar_to_image, points)
