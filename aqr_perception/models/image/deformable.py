"""Modulated deformable convolution (DCNv2, Zhu et al. 2019, https://arxiv.org/abs/1811.11168), one offset group."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def deformable_convolve(
    features: Tensor, offsets: Tensor, mask: Tensor, weight: Tensor, stride: int = 1, padding: int = 0
) -> Tensor:
    """Return (N, O, h, w): a convolution whose every sampling point is moved and weighted, place by place.

    Points between cells are interpolated bilinearly; outside the map there are zeros.

    Args:
        features: (N, C, H, W).
        offsets: (N, 2 k k, h, w) in cells: y, then x, of every kernel point, row by row.
        mask: (N, k k, h, w), factor of every kernel point.
        weight: (O, C, k, k).
        stride, padding: as in an ordinary convolution.
    """
    height, width = features.shape[2:]
    rows, columns = offsets.shape[2:]
    size = weight.shape[-1]
    # Coordinates in fp32 whatever the maps' precision: at column 100 a bf16 one is half a cell coarse.
    shift_y, shift_x = offsets.float().unflatten(1, (size * size, 2)).unbind(2)
    kernel = torch.arange(size * size, device=features.device)[:, None, None]
    y = shift_y + (torch.arange(rows, device=features.device) * stride - padding)[:, None]
    y = y + torch.div(kernel, size, rounding_mode="floor")
    x = shift_x + (torch.arange(columns, device=features.device) * stride - padding) + kernel % size
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    sampled = F.grid_sample(features.float(), grid.flatten(1, 2), align_corners=False)
    patches = sampled.unflatten(2, (size * size, rows)) * mask.float()[:, None]
    return (weight.flatten(1) @ patches.flatten(3).flatten(1, 2).to(weight.dtype)).unflatten(-1, (rows, columns))


class DeformableConvolution(nn.Module):
    """A convolution without bias that learns from the map itself where to look, and how much each point counts.

    Starts as an ordinary convolution of half the weight. Parameters are named as mmcv's ModulatedDeformConv2dPack.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, padding: int = 1
    ) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        points = kernel_size * kernel_size
        self.conv_offset = nn.Conv2d(in_channels, 3 * points, kernel_size, stride, padding)
        nn.init.zeros_(self.conv_offset.weight)
        if self.conv_offset.bias is not None:
            nn.init.zeros_(self.conv_offset.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, out, h, w) of (N, in, H, W)."""
        points = self.weight.shape[-1] ** 2
        offsets, mask = self.conv_offset(features).split((2 * points, points), dim=1)
        return deformable_convolve(features, offsets, mask.sigmoid(), self.weight, self.stride, self.padding)
