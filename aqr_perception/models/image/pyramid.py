# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Simple feature pyramid of plain backbones: all levels from the last map (ViTDet, arXiv:2203.16527)."""

import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.image.vit_blocks import layer_norm


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each cell."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = layer_norm(channels)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, C, H, W) for (N, C, H, W) features, channels last in memory."""
        normalised: Tensor = self.norm(features.permute(0, 2, 3, 1))
        return normalised.permute(0, 3, 1, 2)


class SimpleFeaturePyramid(nn.Module):
    """Independent maps of strides 8, 16 and 32 from one map of stride 16.

    Args:
        in_channels: channels of the map of stride 16.
        stages: maps to return, ascending: 2, 3 and 4 are strides 8, 16 and 32, as in a ResNet.
        out_channels: channels of each output.
    """

    def __init__(self, in_channels: int, stages: tuple[int, ...] = (2, 3, 4), out_channels: int = 256) -> None:
        super().__init__()
        if not stages or list(stages) != sorted(set(stages) & {2, 3, 4}):
            raise ValueError(f"pyramid stages are {stages}, but must be ascending stages out of 2, 3, 4")
        self.levels = nn.ModuleList(_level(stage, in_channels, out_channels) for stage in stages)

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return (N, out_channels, H', W') maps, finest first, of an (N, C, H, W) map; odd sizes are rounded up."""
        return tuple(level(features) for level in self.levels)


class _HalveResolution(nn.Module):
    # ceil_mode as in the other backbones: an odd last row or column becomes a cell.
    def forward(self, features: Tensor) -> Tensor:
        return F.max_pool2d(features, 2, ceil_mode=True)


def _level(stage: int, in_channels: int, out_channels: int) -> nn.Sequential:
    resample: dict[int, nn.Module] = {
        2: nn.ConvTranspose2d(in_channels, in_channels // 2, 2, stride=2),
        3: nn.Identity(),
        4: _HalveResolution(),
    }
    channels = in_channels // 2 if stage == 2 else in_channels
    return nn.Sequential(
        resample[stage],
        nn.Conv2d(channels, out_channels, 1, bias=False),
        ChannelNorm(out_channels),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        ChannelNorm(out_channels),
    )
