# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Feature pyramids with all levels or one level (Lin et al. 2017, https://arxiv.org/abs/1612.03144)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.ops.convolution import convolve


class _Convolution(nn.Module):
    # The published checkpoints' keys have an extra level: `...0.conv.weight`.
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)

    def forward(self, features: Tensor, residual: Tensor | None = None) -> Tensor:
        return convolve(features, self.conv, residual=residual)


class CPFPN(nn.Module):
    """Feature pyramid that returns only the finest level.

    1x1 convolutions bring all levels to one width, coarse levels are added to finer ones, and a 3x3 convolution smooths
    the finest level.

    Args:
        in_channels: channels of the backbone's levels, finest first.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int = 256) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.lateral_convs = nn.ModuleList(_Convolution(channels, out_channels, 1) for channels in in_channels)
        self.fpn_convs = nn.ModuleList([_Convolution(out_channels, out_channels, 3)])

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the finest level (N, out_channels, H, W) for the backbone's levels (N, C, H, W), finest first."""
        output: Tensor = self.fpn_convs[0](self.top_down(levels)[0])
        return output

    def top_down(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return all levels before smoothing; the coarser ones equal the other outputs of the published necks."""
        return _top_down(self.lateral_convs, levels)


class FPN(nn.Module):
    """Feature pyramid that smooths and returns all levels, followed by additional coarser ones.

    Args:
        in_channels: channels of the backbone's levels, finest first.
        levels: number of outputs. Each output beyond the backbone's levels is a 3x3 convolution of stride 2 of the
            previous output, with a ReLU between two such convolutions.
        out_channels: channels of each output.
    """

    def __init__(self, in_channels: Sequence[int], levels: int, out_channels: int = 256) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(_Convolution(channels, out_channels, 1) for channels in in_channels)
        strides = [1] * len(in_channels) + [2] * (levels - len(in_channels))
        self.fpn_convs = nn.ModuleList(_Convolution(out_channels, out_channels, 3, stride) for stride in strides)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return (N, out_channels, H, W) maps, finest first, for the backbone's levels (N, C, H, W), finest first."""
        merged = _top_down(self.lateral_convs, levels)
        outputs = [convolution(features) for convolution, features in zip(self.fpn_convs, merged, strict=False)]
        for index in range(len(merged), len(self.fpn_convs)):
            source = F.relu(outputs[-1]) if index > len(merged) else outputs[-1]
            outputs.append(self.fpn_convs[index](source))
        return tuple(outputs)


def _top_down(laterals: nn.ModuleList, levels: Sequence[Tensor]) -> list[Tensor]:
    if len(levels) != len(laterals):
        raise ValueError(f"the FPN has {len(laterals)} levels, but got {len(levels)} feature maps")
    merged: list[Tensor] = []
    for lateral, features in zip(reversed(laterals), reversed(levels), strict=True):
        coarser = F.interpolate(merged[0], features.shape[-2:], mode="nearest") if merged else None
        merged.insert(0, lateral(features, coarser))
    return merged
