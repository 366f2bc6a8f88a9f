"""Feature pyramid (Lin et al. 2017, https://arxiv.org/abs/1612.03144), reduced to the level that is read."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.convolution import convolve


class _Convolution(nn.Module):
    # One level more in the keys than a plain convolution's: the published checkpoints have `...0.conv.weight`.
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, features: Tensor, residual: Tensor | None = None) -> Tensor:
        return convolve(features, self.conv, residual=residual)


class CPFPN(nn.Module):
    """1x1 convolutions bring all levels to one width, coarse ones are added to finer ones, the finest is smoothed.

    Args:
        in_channels: of the backbone's levels, finest first.
        out_channels: of every output.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int = 256) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.lateral_convs = nn.ModuleList(_Convolution(channels, out_channels, 1) for channels in in_channels)
        self.fpn_convs = nn.ModuleList([_Convolution(out_channels, out_channels, 3)])

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the finest level (N, out_channels, H, W) of the backbone's levels (N, C, H, W), finest first."""
        return self.fpn_convs[0](self.top_down(levels)[0])

    def top_down(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return every level before smoothing; the coarser ones of them are the published necks' further outputs."""
        if len(levels) != len(self.lateral_convs):
            raise ValueError(f"the FPN has {len(self.lateral_convs)} levels, but got {len(levels)} feature maps")
        merged: list[Tensor] = []
        for lateral, features in zip(reversed(self.lateral_convs), reversed(levels), strict=True):
            coarser = F.interpolate(merged[0], features.shape[-2:], mode="nearest") if merged else None
            merged.insert(0, lateral(features, coarser))
        return merged
