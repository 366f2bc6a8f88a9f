# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Tiles: neighbouring windows with a bias, grouped so that one small rectangle of tokens covers them."""

from typing import NamedTuple

import torch
from torch import Tensor

_GROUP = 16
"""Largest number of windows in a tile. Smaller tiles read shared tokens more often; larger ones have empty slots."""


class Tiles(NamedTuple):
    """Groups of up to `_GROUP` windows that fit into one rectangle of R x C tokens.

    Indexing every field gives a single tile; its properties lack the leading dimension.

    Attributes:
        queries: (T, N) int64, numbered over the batch; an empty slot repeats a query of its tile, with zero growth.
        segment: (T,) int64, index in `TokenLayout.segments`.
        row_tokens, column_tokens: (T, R) and (T, C) int64; a token's number is the sum of its row's and its column's.
        row_growth: (T, N, R) float32, exp(bias) - 1 (at least -1) in the rows of each query's window; 0 elsewhere.
        column_inside: (T, N, C) float32, 1 in the columns of each query's window; 0 elsewhere.
    """

    queries: Tensor
    segment: Tensor
    row_tokens: Tensor
    column_tokens: Tensor
    row_growth: Tensor
    column_inside: Tensor

    @property
    def tokens(self) -> Tensor:
        """(T, R * C) int64, numbered over the batch."""
        return (self.row_tokens[..., :, None] + self.column_tokens[..., None, :]).flatten(-2)

    @property
    def growth(self) -> Tensor:
        """(T, N, R * C) float32, exp(bias) - 1 of each query for each token; 0 outside its window."""
        return (self.row_growth[..., :, None] * self.column_inside[..., None, :]).flatten(-2)


def reach(window: int) -> tuple[int, int]:
    """Return how many cells a window extends before and after its centre: -3..4 for an even window of 8 cells."""
    return (window - 1) // 2, window // 2


def near(offset: Tensor, window: int) -> Tensor:
    """Return whether offsets from a window's centre, in cells, are inside the window."""
    before, after = reach(window)
    return (offset >= -before) & (offset <= after)


def group_windows(
    weights: Tensor,
    cells: Tensor,
    grid: tuple[int, int],
    window: int,
    first_token: int,
    total: int,
    first_segment: int,
    sensors: Tensor | None,
) -> Tiles:
    """Group windows with weights (B, Q, V) and cells (B, Q, V, 2) by their position in the grid."""
    sample, query, view = weights.nonzero(as_tuple=True)
    weight, cell = weights[sample, query, view], cells[sample, query, view]
    (before, after), edge = reach(window), max(window, 8)
    size = [min(edge + before + after, length) for length in grid]

    across = -(-grid[1] // edge)
    down = -(-grid[0] // edge)
    # A window whose centre is outside the grid may still have cells inside.
    place = torch.div(cell, edge, rounding_mode="floor").clamp(min=0).minimum(cell.new_tensor((down - 1, across - 1)))
    key = ((sample * weights.shape[2] + view) * down + place[:, 0]) * across + place[:, 1]
    order = key.argsort(stable=True)
    _, counts = torch.unique_consecutive(key[order], return_counts=True)
    rank = torch.arange(len(key), device=key.device) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    tile = (rank % _GROUP == 0).cumsum(0) - 1  # a tile begins at each new position and after each full group
    slot = rank % _GROUP

    tile_count = int(tile[-1]) + 1 if len(tile) else 0
    firsts = order[rank % _GROUP == 0]
    limit = cell.new_tensor([length - extent for length, extent in zip(grid, size, strict=True)])
    corner = (place[firsts] * edge - before).clamp(min=0).minimum(limit)
    row = corner[:, :1] + torch.arange(size[0], device=key.device)
    column = corner[:, 1:] + torch.arange(size[1], device=key.device)

    owner = sample * weights.shape[1] + query
    # Empty slots repeat a query of the tile: scores of another sample's query could exceed their log-sum-exp.
    queries = owner[firsts][:, None].repeat(1, _GROUP)
    queries[tile, slot] = owner[order]
    centre = cell.new_zeros(tile_count, _GROUP, 2)
    centre[tile, slot] = cell[order]
    value = weight.new_zeros(tile_count, _GROUP)
    value[tile, slot] = weight[order]
    near_row = near(row[:, None] - centre[..., :1], window)
    near_column = near(column[:, None] - centre[..., 1:], window)

    growth = torch.expm1(value)
    if sensors is not None:
        growth = growth * sensors[sample[firsts], first_segment + view[firsts]].exp()[:, None]
    start = sample[firsts] * total + first_token + view[firsts] * (grid[0] * grid[1])
    return Tiles(
        queries,
        first_segment + view[firsts],
        start[:, None] + row * grid[1],
        column,
        torch.where(near_row, growth[..., None], 0.0),
        near_column.to(value.dtype),
    )
