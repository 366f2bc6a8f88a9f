"""Windowed attention bias of the query weights, added to cross-attention logits inside windows around the queries.

The bias never exists as a (Q, K) tensor. `WindowBias` holds the cells and weights of the queries; its ``tiles`` group
neighbouring queries, so that one small rectangle of tokens covers all their windows.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import AqrOptions

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


class WindowList(NamedTuple):
    """Windows with a bias, query by query.

    Attributes:
        starts: (B * Q + 1,) int64, the first window of each query.
        windows: (P, 7) int64: the token of the grid's first cell, numbered over the batch, the grid's columns, the
            window's first row, last row + 1, first column and last column + 1, and the index of the segment.
        growth: (P,) float32, exp(bias) - 1.
    """

    starts: Tensor
    windows: Tensor
    growth: Tensor


@dataclass(frozen=True)
class WindowBias:
    """Additive attention bias of the queries inside their windows.

    Attributes:
        cells: cells of the queries.
        lidar: (B, Q), bias inside the BEV window of each query; 0 for queries outside the BEV grid.
        cameras: (B, Q, V), bias inside the window of each query in each camera; 0 if the camera does not see the query.
        layout: layout of the tokens.
        bev_window, image_window: edge length of the windows in cells; see `reach`. The grid's borders clip windows.
    """

    cells: QueryCells
    lidar: Tensor
    cameras: Tensor
    layout: TokenLayout
    bev_window: int
    image_window: int

    @cached_property
    def tiles(self) -> tuple[Tiles, Tiles]:
        """Tiles of the BEV windows and tiles of the image windows, computed once for all decoder layers."""
        bev = (self.lidar[..., None], self.cells.bev[:, :, None], self.layout.bev, self.bev_window, 0)
        image = (self.cameras, self.cells.image, self.layout.image, self.image_window, self.layout.bev_tokens)
        return _tiles(*bev, self.layout.total, 0), _tiles(*image, self.layout.total, 1)

    @cached_property
    def windows(self) -> WindowList:
        """The same windows one by one, clipped at the grids' borders, computed once for all decoder layers."""
        weights = torch.cat((self.lidar[..., None], self.cameras), dim=-1)
        sample, query, segment = weights.nonzero(as_tuple=True)
        cells = torch.cat((self.cells.bev[:, :, None], self.cells.image), dim=2)[sample, query, segment]
        is_bev = segment == 0

        def by_kind(bev: int, image: int) -> Tensor:
            return torch.where(is_bev, bev, image)

        (bev_before, bev_after), (image_before, image_after) = reach(self.bev_window), reach(self.image_window)
        before, after = by_kind(bev_before, image_before), by_kind(bev_after, image_after)
        edges = []
        for axis in range(2):
            length = by_kind(self.layout.bev[axis], self.layout.image[axis])
            edges += [(cells[:, axis] - before).clamp(min=0), torch.minimum(cells[:, axis] + after + 1, length)]
        first = self.layout.bev_tokens + (segment - 1) * self.layout.tokens_per_view
        first = sample * self.layout.total + torch.where(is_bev, 0, first)
        columns = by_kind(self.layout.bev[1], self.layout.image[1])
        count = weights.shape[0] * weights.shape[1]
        owner, queries = sample * weights.shape[1] + query, torch.arange(count + 1, device=weights.device)
        windows = torch.stack((first, columns, *edges, segment), dim=1)
        return WindowList(torch.searchsorted(owner, queries), windows, torch.expm1(weights[sample, query, segment]))

    def dense(self, queries: slice = slice(None)) -> Tensor:
        """Return the bias of a slice of the queries as (B, Q, K), differentiable in the weights."""
        return torch.stack([self.rows(sample, queries) for sample in range(len(self.lidar))])

    def rows(self, sample: int, queries: slice | Tensor) -> Tensor:
        """Return the bias of some queries (slice or indices) of a sample as (Q, K), differentiable in the weights."""
        segments = [
            _dense(cell[queries], weight[queries], grid, window)
            for cell, weight, grid, window in self._segments(sample)
        ]
        return torch.cat(segments, dim=-1)

    def with_weights(self, lidar: Tensor, cameras: Tensor) -> "WindowBias":
        """Return the same windows with other weights."""
        return replace(self, lidar=lidar, cameras=cameras)

    def _segments(self, sample: int) -> list[tuple[Tensor, Tensor, tuple[int, int], int]]:
        """Return cells (Q, 2), weights (Q,), grid and window of each segment."""
        bev = (self.cells.bev[sample], self.lidar[sample], self.layout.bev, self.bev_window)
        cameras = [
            (self.cells.image[sample, :, view], self.cameras[sample, :, view], self.layout.image, self.image_window)
            for view in range(self.layout.views)
        ]
        return [bev, *cameras]


def reach(window: int) -> tuple[int, int]:
    """Return how many cells a window extends before and after its centre: -3..4 for an even window of 8 cells."""
    return (window - 1) // 2, window // 2


def build(cells: QueryCells, lidar: Tensor, cameras: Tensor, layout: TokenLayout, options: AqrOptions) -> WindowBias:
    """Return the bias of LiDAR weights (B, Q) and camera weights (B, Q, V), scaled by ``options.strength``.

    Args:
        cells: cells of the queries, the centres of the windows.
        layout: layout of the tokens.
        options: strength, and window sizes as in `AqrOptions.resolved`.
    """
    return WindowBias(
        cells,
        options.strength * torch.where(cells.bev_inside, lidar.float(), 0.0),
        options.strength * torch.where(cells.image_visible, cameras.float(), 0.0),
        layout,
        options.bev_window,
        options.image_window,
    )


def _dense(cell: Tensor, weight: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """Return (Q, rows * columns): the weight inside each query's window, 0 outside."""
    near_row = _near(torch.arange(grid[0], device=cell.device) - cell[:, :1], window)
    near_column = _near(torch.arange(grid[1], device=cell.device) - cell[:, 1:], window)
    inside = near_row[:, :, None] & near_column[:, None, :]
    return torch.where(inside.flatten(1), weight[:, None], 0.0)


def _near(offset: Tensor, window: int) -> Tensor:
    """Return whether offsets from a window's centre, in cells, are inside the window."""
    before, after = reach(window)
    return (offset >= -before) & (offset <= after)


def _tiles(
    weights: Tensor, cells: Tensor, grid: tuple[int, int], window: int, first_token: int, total: int, first_segment: int
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
    near_row = _near(row[:, None] - centre[..., :1], window)
    near_column = _near(column[:, None] - centre[..., 1:], window)

    start = sample[firsts] * total + first_token + view[firsts] * (grid[0] * grid[1])
    return Tiles(
        queries,
        first_segment + view[firsts],
        start[:, None] + row * grid[1],
        column,
        torch.where(near_row, torch.expm1(value)[..., None], 0.0),
        near_column.to(value.dtype),
    )
