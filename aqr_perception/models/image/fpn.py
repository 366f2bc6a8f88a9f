"""Feature pyramids (Lin et al. 2017, https://arxiv.org/abs/1612.03144): whole, and reduced to one level."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.ops.convolution import convolve


class _Convolution(nn.Module):
    # One level more in the keys than a plain convolution's: the published checkpoints have `...0.conv.weight`.
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)

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
        return _top_down(self.lateral_convs, levels)


class FPN(nn.Module):
    """As `CPFPN`, but every level is smoothed and returned, followed by coarser ones made of the coarsest.

    Args:
        in_channels: of the backbone's levels, finest first.
        levels: how many maps come out; every one beyond the backbone's is a 3x3 convolution of stride 2 of the one
            before, after a ReLU where that one is such a convolution, too.
        out_channels: of every output.
    """

    def __init__(self, in_channels: Sequence[int], levels: int, out_channels: int = 256) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(_Convolution(channels, out_channels, 1) for channels in in_channels)
        strides = [1] * len(in_channels) + [2] * (levels - len(in_channels))
        self.fpn_convs = nn.ModuleList(_Convolution(out_channels, out_channels, 3, stride) for stride in strides)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return (N, out_channels, H, W) maps, finest first, of the backbone's levels (N, C, H, W), finest first."""
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
