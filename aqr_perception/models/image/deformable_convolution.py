# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Modulated deformable convolution with one offset group (DCNv2, Zhu et al. 2019, https://arxiv.org/abs/1811.11168)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.ops.bilinear import neighbours, weighted_sums

_POINTS = 3 * 3
"""Sampling points of a `DeformableConvolution`."""


def deformable_convolve(
    features: Tensor, offsets: Tensor, mask: Tensor, weight: Tensor, stride: int = 1, padding: int = 0
) -> Tensor:
    """Return the (N, O, h, w) outputs of a convolution with shifted and weighted sampling points for each output cell.

    Features are interpolated bilinearly and are zero outside the map.

    Args:
        features: (N, C, H, W).
        offsets: (N, 2 k k, h, w), y and x in cells of each kernel point, row by row.
        mask: (N, k k, h, w), factor of each kernel point.
        weight: (O, C, k, k).
        stride, padding: as in an ordinary convolution.
    """
    size = weight.shape[-1]
    x, y = _sampling_points(offsets, size, stride, padding)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (features, offsets, mask, weight)):
        return _convolve_by_grid(features, x, y, mask, weight)
    return _convolve_by_gathering(features, x, y, mask, weight)


def _sampling_points(offsets: Tensor, size: int, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    """Return x and y (N, k k, h, w) of the sampling points in cells, with cell centres at integers.

    The result is always float32: around column 100, bf16 coordinates are half a cell apart.
    """
    rows, columns = offsets.shape[2:]
    shift_y, shift_x = offsets.float().unflatten(1, (size * size, 2)).unbind(2)
    kernel = torch.arange(size * size, device=offsets.device)[:, None, None]
    row = torch.arange(rows, device=offsets.device)[:, None] * stride - padding
    column = torch.arange(columns, device=offsets.device) * stride - padding
    return shift_x + column + kernel % size, shift_y + row + torch.div(kernel, size, rounding_mode="floor")


def _convolve_by_grid(features: Tensor, x: Tensor, y: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    height, width = features.shape[2:]
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    sampled = F.grid_sample(features.float(), grid.flatten(1, 2), align_corners=False)
    patches = sampled.unflatten(2, x.shape[1:3]) * mask.float()[:, None]
    products: Tensor = weight.flatten(1) @ patches.flatten(3).flatten(1, 2).to(weight.dtype)
    outputs: Tensor = products.unflatten(-1, x.shape[2:])
    return outputs


def _convolve_by_gathering(features: Tensor, x: Tensor, y: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    count, channels, height, width = features.shape
    rows, columns = x.shape[2:]
    x, y, factor = (values.permute(0, 2, 3, 1).contiguous() for values in (x, y, mask.float()))
    cell, weights = neighbours(x, y, height, width)
    sample = torch.arange(count, device=x.device).view(-1, 1, 1, 1, 1) * (height * width)
    table = features.float().permute(0, 2, 3, 1).reshape(-1, channels)
    patches = weighted_sums(table, (sample + cell).view(-1, 4), (weights * factor[..., None]).view(-1, 4))
    kernel = weight.permute(2, 3, 1, 0).flatten(0, 2)
    products = patches.view(count * rows * columns, -1).to(weight.dtype) @ kernel
    return products.view(count, rows, columns, -1).permute(0, 3, 1, 2)


class DeformableConvolution(nn.Module):
    """3x3 deformable convolution without bias, with offsets and mask predicted from its input.

    Initially an ordinary convolution with half the weight. Parameter names follow mmcv's ModulatedDeformConv2dPack.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        self.conv_offset = nn.Conv2d(in_channels, 3 * _POINTS, 3, stride, padding=1)
        nn.init.zeros_(self.conv_offset.weight)
        if self.conv_offset.bias is not None:
            nn.init.zeros_(self.conv_offset.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, out, h, w) for (N, in, H, W) features."""
        offsets, mask = self.conv_offset(features).split((2 * _POINTS, _POINTS), dim=1)
        return deformable_convolve(features, offsets, mask.sigmoid(), self.weight, self.stride, padding=1)
