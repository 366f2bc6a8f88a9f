# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Multi-scale deformable attention (Deformable DETR, https://arxiv.org/abs/2010.04159).

A query attends to a few points of each feature map instead of all cells. It predicts the points' offsets from its
reference point.
"""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.ops.bilinear import neighbours, weighted_sums
from aqr_perception.models.ops.fastest import Fastest

Shapes = Sequence[tuple[int, int]]
"""Rows and columns of every level, in the order in which their cells are concatenated."""


def attend(values: Tensor, shapes: Shapes, places: Tensor, weights: Tensor) -> Tensor:
    """Return (N, Q, heads * d) weighted sums of bilinear samples, in fp32; samples outside a map are zero.

    The result is fp32 for every precision of the values: a bf16 position in a map of 200 columns is off by half a cell.

    Without gradients, one fused operation gathers and sums the samples (see `bilinear`). On CUDA, one kernel also
    computes their cells (see `fused_attention`) where a measurement shows it to be faster.

    Args:
        values: (N, cells of all levels, heads, d), every level row by row.
        shapes: rows and columns of the levels.
        places: (N, Q, heads, levels, P, 2), positions x and y in 0..1 of each map.
        weights: (N, Q, heads, levels, P).
    """
    values, places, weights = values.float(), places.float(), weights.float()
    with torch.autocast(values.device.type, enabled=False):
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (values, places, weights)):
            return attend_by_grid(values, shapes, places, weights)
        if values.is_cuda:
            # The number of queries varies between frames, so one measurement serves all similar numbers.
            kind = (values.device, values.shape[2:], places.shape[3:], places[..., 0].numel().bit_length())
            return _on_cuda(kind, values, shapes, places, weights)
        return attend_by_gathering(values, shapes, places, weights)


def attend_by_grid(values: Tensor, shapes: Shapes, places: Tensor, weights: Tensor) -> Tensor:
    """Compute `attend` level by level with grid sampling."""
    count, _, heads, channels = values.shape
    queries, points = places.shape[1], places.shape[4]
    output = values.new_zeros(count * heads, channels, queries)
    levels = torch.split(values, [rows * columns for rows, columns in shapes], dim=1)
    for level, ((rows, columns), cells) in enumerate(zip(shapes, levels, strict=True)):
        maps = cells.permute(0, 2, 3, 1).reshape(count * heads, channels, rows, columns)
        grid = (2 * places[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
        sampled = F.grid_sample(maps, grid, align_corners=False)
        factors = weights[:, :, :, level].transpose(1, 2).reshape(count * heads, 1, queries, points)
        output = output + (sampled * factors).sum(-1)
    return output.view(count, heads * channels, queries).transpose(1, 2)


def attend_by_gathering(values: Tensor, shapes: Shapes, places: Tensor, weights: Tensor) -> Tensor:
    """Compute `attend` for inference, all levels at once; see `bilinear`."""
    count, cells, heads, channels = values.shape
    queries, device = places.shape[1], values.device
    rows, columns, starts = level_table(shapes, device)[..., None].unbind(1)
    cell, shares = neighbours(places[..., 0] * columns - 0.5, places[..., 1] * rows - 0.5, rows, columns)
    # Values are ordered by sample, cell and head.
    sample = torch.arange(count, device=device).view(-1, 1, 1, 1, 1, 1) * cells
    head = torch.arange(heads, device=device).view(-1, 1, 1, 1)
    index = (sample + starts[..., None] + cell) * heads + head
    bags = count * queries * heads
    factors = shares * weights[..., None]
    output = weighted_sums(values.reshape(-1, channels), index.view(bags, -1), factors.view(bags, -1))
    return output.view(count, queries, heads * channels)


def attend_by_kernel(values: Tensor, shapes: Shapes, places: Tensor, weights: Tensor) -> Tensor:
    """Compute `attend` for inference on CUDA.

    Raises:
        ImportError: Triton is not installed.
    """
    from aqr_perception.models.bevformer.fused_attention import attend_fused  # needs Triton

    return attend_fused(values, level_table(shapes, values.device), places, weights)


_on_cuda = Fastest((attend_by_kernel, attend_by_gathering))


def level_table(shapes: Shapes, device: torch.device | str) -> Tensor:
    """Return (L, 3) int32: rows, columns and first cell of each level."""
    first = itertools.accumulate((rows * columns for rows, columns in shapes), initial=0)
    return torch.tensor(
        [(*shape, cell) for shape, cell in zip(shapes, first, strict=False)], dtype=torch.int32, device=device
    )


def offset_bias(heads: int, levels: int, points: int) -> Tensor:
    """Return (heads * levels * points * 2,) initial offsets: one direction per head, one more cell per point.

    Args:
        levels: number of maps that a head attends to.
    """
    angle = torch.arange(heads) * (2 * math.pi / heads)
    direction = torch.stack((angle.cos(), angle.sin()), dim=-1)
    direction = direction / direction.abs().amax(-1, keepdim=True)
    steps = torch.arange(1, points + 1)[:, None]
    return (direction[:, None, None] * steps).expand(heads, levels, points, 2).flatten()


class Sampling(nn.Module):
    """Common layers of deformable attention: offsets and weights from the query, and a projection of the values.

    Args:
        channels: channels of values and output.
        heads, levels: numbers of heads and levels.
        points: number of points per head and level.
        context: channels of the query; `channels` by default.
        maps: number of sets of values; the query attends to each set separately.
    """

    def __init__(
        self, channels: int, heads: int, levels: int, points: int, context: int | None = None, maps: int = 1
    ) -> None:
        super().__init__()
        self.layout = (heads, maps, levels, points)
        context = context or channels
        self.sampling_offsets = nn.Linear(context, 2 * heads * maps * levels * points)
        self.attention_weights = nn.Linear(context, heads * maps * levels * points)
        self.value_proj = nn.Linear(channels, channels)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offset_bias(heads, maps * levels, points))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        nn.init.xavier_uniform_(self.value_proj.weight)
        nn.init.zeros_(self.value_proj.bias)

    def values(self, features: Tensor) -> Tensor:
        """Return (..., heads, d) of (..., C)."""
        values: Tensor = self.value_proj(features)
        heads = self.layout[0]
        return values.reshape(*values.shape[:-1], heads, values.shape[-1] // heads)

    def points(self, queries: Tensor, shapes: Shapes) -> tuple[Tensor, Tensor]:
        """Return the sampling points of (N, Q, context) queries: offsets as a share of each map, and weights.

        Returns:
            (N, Q, heads, maps, levels, P, 2) x and y, and (N, Q, heads, maps, levels, P), which sum to 1 over the
            levels and points of each of the maps.
        """
        sizes = torch.tensor([(columns, rows) for rows, columns in shapes], device=queries.device)
        offsets = self.sampling_offsets(queries).float().reshape(*queries.shape[:2], *self.layout, 2) / sizes[:, None]
        weights = self.attention_weights(queries).float().reshape(*queries.shape[:2], *self.layout)
        return offsets, weights.flatten(-2).softmax(-1).view_as(weights)
