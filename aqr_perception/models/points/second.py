# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""SECOND's backbone for bird's-eye-view (BEV) features, and its pyramid (Yan et al. 2018, Sensors 18(10):3337)."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from aqr_perception.models.ops.convolution import convolve

_STRIDES = (1, 2)
"""Stride of each stage's first convolution."""


class SECOND(nn.Module):
    """Stages of 3x3 convolutions with batch norm (eps 1e-3) and ReLU; the first convolution of a stage is strided.

    Args:
        in_channels: channels of the BEV features.
        channels: channels of each stage.
        layers: number of convolutions after the first one in each stage.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int] = (128, 256),
        layers: Sequence[int] = (5, 5),
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for width, count, stride in zip(channels, layers, _STRIDES, strict=True):
            block = nn.Sequential()
            for index in range(count + 1):
                block.append(nn.Conv2d(in_channels, width, 3, stride if index == 0 else 1, padding=1, bias=False))
                block.append(nn.BatchNorm2d(width, eps=1e-3, momentum=0.01))
                block.append(nn.ReLU(inplace=True))
                in_channels = width
            self.blocks.append(block)

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return each stage's (B, channels, h, w) maps of (B, in_channels, H, W) BEV features."""
        features = features.contiguous(memory_format=torch.channels_last)
        outputs = []
        for block in self.blocks:
            layers = list(cast(nn.Sequential, block))
            for convolution, norm in zip(layers[0::3], layers[1::3], strict=True):
                features = convolve(features, cast(nn.Conv2d, convolution), cast(nn.BatchNorm2d, norm), relu=True)
            outputs.append(features)
        return tuple(outputs)


class SECONDFPN(nn.Module):
    """Upsampling of all stages to the first one's resolution and concatenation of their channels.

    Args:
        in_channels: channels of each stage.
        out_channels: channels of each stage in the result.
    """

    def __init__(self, in_channels: Sequence[int] = (128, 256), out_channels: int = 256) -> None:
        super().__init__()
        self.out_channels = out_channels * len(in_channels)
        self.deblocks = nn.ModuleList()
        for channels, stride in zip(in_channels, _STRIDES, strict=True):
            upsample = (
                nn.Conv2d(channels, out_channels, 1, bias=False)
                if stride == 1
                else nn.ConvTranspose2d(channels, out_channels, stride, stride, bias=False)
            )
            norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01)
            self.deblocks.append(nn.Sequential(upsample, norm, nn.ReLU(inplace=True)))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return (B, out_channels x stages, H, W) from each stage's (B, in_channels, h, w) features."""
        # Folding the norms gains nothing here: writing the large result dominates the time.
        return torch.cat([block(level) for block, level in zip(self.deblocks, features, strict=True)], dim=1)
