"""Modulated deformable convolution (DCNv2, Zhu et al. 2019, https://arxiv.org/abs/1811.11168), one offset group."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.ops.bilinear import neighbours, weighted_sums


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
    size = weight.shape[-1]
    x, y = _places(offsets, size, stride, padding)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (features, offsets, mask, weight)):
        return _convolve_by_grid(features, x, y, mask, weight)
    return _convolve_by_gathering(features, x, y, mask, weight)


def _places(offsets: Tensor, size: int, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    """Return x and y, (N, k k, h, w), of every sampling point in cells whose centres lie at whole numbers.

    In fp32 whatever the maps' precision: at column 100 a bf16 coordinate is a quarter of a cell coarse.
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
    products = weight.flatten(1) @ patches.flatten(3).flatten(1, 2).to(weight.dtype)
    return products.unflatten(-1, x.shape[2:])


def _convolve_by_gathering(features: Tensor, x: Tensor, y: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    count, channels, height, width = features.shape
    rows, columns = x.shape[2:]
    x, y, factor = (values.permute(0, 2, 3, 1).contiguous() for values in (x, y, mask.float()))
    cell, shares = neighbours(x, y, height, width)
    sample = torch.arange(count, device=x.device).view(-1, 1, 1, 1, 1) * (height * width)
    table = features.float().permute(0, 2, 3, 1).reshape(-1, channels)
    patches = weighted_sums(table, (sample + cell).view(-1, 4), (shares * factor[..., None]).view(-1, 4))
    kernel = weight.permute(2, 3, 1, 0).flatten(0, 2)
    products = patches.view(count * rows * columns, -1).to(weight.dtype) @ kernel
    return products.view(count, rows, columns, -1).permute(0, 3, 1, 2)


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
