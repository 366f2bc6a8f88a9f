"""Query weights as an additive bias on cross-attention logits, inside windows around the queries.

The bias is never held as a (Q, K) tensor: `WindowBias` keeps each query's cells and weights, and `tiles` groups queries
that lie close together, so that their windows are one small rectangle of tokens.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import AqrOptions


@dataclass(frozen=True)
class Tile:
    """Queries whose windows in one segment lie in one rectangle of its grid.

    Attributes:
        sample, segment: index in the batch, and of the segment in `TokenLayout.segments`.
        queries: (N,) int64.
        rows, columns: of the segment's grid.
        growth: (N, M) float32, exp(bias) - 1 of each query for each token of the rectangle, row by row.
    """

    sample: int
    segment: int
    queries: Tensor
    rows: slice
    columns: slice
    growth: Tensor


@dataclass(frozen=True)
class WindowBias:
    """What the bias is made of.

    Attributes:
        cells: of the queries.
        lidar: (B, Q), the bias inside each query's BEV window; 0 where the query has none.
        cameras: (B, Q, V), the bias inside its window of each camera; 0 where the camera does not see it.
        layout: of the tokens.
        bev_window, image_window: edge length in cells, odd; windows are cut at the borders of their grid.
    """

    cells: QueryCells
    lidar: Tensor
    cameras: Tensor
    layout: TokenLayout
    bev_window: int
    image_window: int

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """All tiles. They are the same in every decoder layer, so they are made once."""
        tiles: list[Tile] = []
        for sample in range(len(self.lidar)):
            for segment, (cell, weight, grid, window) in enumerate(self._segments(sample)):
                tiles += _tiles(sample, segment, cell, weight, grid, window)
        return tuple(tiles)

    def dense(self, queries: slice = slice(None)) -> Tensor:
        """Return the bias of some queries as (B, Q, K); differentiable in the weights."""
        return torch.stack(
            [
                torch.cat(
                    [_dense(cell[queries], weight[queries], *grid) for cell, weight, *grid in self._segments(sample)], dim=-1
                )
                for sample in range(len(self.lidar))
            ]
        )

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


def build(
    cells: QueryCells, lidar: Tensor, cameras: Tensor, layout: TokenLayout, options: AqrOptions
) -> WindowBias:
    """Return the bias of the queries' LiDAR weights (B, Q) and weights by camera (B, Q, V), times the strength."""
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
    near_row = (torch.arange(grid[0], device=cell.device) - cell[:, :1]).abs() <= window // 2
    near_column = (torch.arange(grid[1], device=cell.device) - cell[:, 1:]).abs() <= window // 2
    inside = near_row[:, :, None] & near_column[:, None, :]
    return torch.where(inside.flatten(1), weight[:, None], 0.0)


def _tiles(
    sample: int, segment: int, cell: Tensor, weight: Tensor, grid: tuple[int, int], window: int
) -> list[Tile]:
    queries = weight.nonzero().flatten()
    if len(queries) == 0:
        return []
    # About a window's width: smaller tiles read shared tokens more often, larger ones score more tokens in vain.
    edge, half = window + 5, window // 2
    place = cell[queries] // edge
    _, tile_of, counts = torch.unique(place[:, 0] * grid[1] + place[:, 1], return_inverse=True, return_counts=True)
    groups = queries[tile_of.argsort()].split(counts.tolist())
    tiles = []
    for group in groups:
        top, left = (cell[group].amin(0) - half).clamp(min=0).tolist()
        bottom, right = (cell[group].amax(0) + half + 1).tolist()
        rows, columns = slice(top, min(bottom, grid[0])), slice(left, min(right, grid[1]))
        size = (rows.stop - rows.start, columns.stop - columns.start)
        shifted = cell[group] - torch.tensor((rows.start, columns.start), device=cell.device)
        growth = torch.expm1(_dense(shifted, weight[group], size, window))
        tiles.append(Tile(sample, segment, group, rows, columns, growth))
    return tiles
