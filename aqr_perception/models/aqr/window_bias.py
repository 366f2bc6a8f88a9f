# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Windowed attention bias of the query weights, added to cross-attention logits inside windows around the queries.

The bias never exists as a (Q, K) tensor. `WindowBias` holds the cells and weights of the queries; its ``tiles`` group
neighbouring queries, so that one small rectangle of tokens covers all their windows.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from aqr_perception.models.aqr.gate import REMOVED, Gate, relative_to_best
from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.aqr.router import RouterWeights
from aqr_perception.models.aqr.window_tiles import Tiles, group_windows, near, reach
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import AqrOptions


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
        sensors: (B, 1 + V), bias of all keys of the LiDAR and of each camera, for all queries; None for none.
    """

    cells: QueryCells
    lidar: Tensor
    cameras: Tensor
    layout: TokenLayout
    bev_window: int
    image_window: int
    sensors: Tensor | None = None

    @cached_property
    def acts_inside(self) -> bool:
        """Whether any window has a bias; a gate whose weights are all 1 has none."""
        return bool(self._acting().any())

    @cached_property
    def tiles(self) -> tuple[Tiles, Tiles]:
        """Tiles of the BEV windows and tiles of the image windows, computed once for all decoder layers."""
        lidar, cameras = self._acting().split((1, self.layout.views), dim=-1)
        bev = (lidar, self.cells.bev[:, :, None], self.layout.bev, self.bev_window, 0)
        image = (cameras, self.cells.image, self.layout.image, self.image_window, self.layout.bev_tokens)
        total, sensors = self.layout.total, self.sensors
        return group_windows(*bev, total, 0, sensors), group_windows(*image, total, 1, sensors)

    @cached_property
    def windows(self) -> WindowList:
        """The same windows one by one, clipped at the grids' borders, computed once for all decoder layers."""
        weights = self._acting()
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
        growth = torch.expm1(weights[sample, query, segment])
        if self.sensors is not None:
            growth = growth * self.sensors[sample, segment].exp()
        return WindowList(torch.searchsorted(owner, queries), windows, growth)

    def dense(self, queries: slice = slice(None)) -> Tensor:
        """Return the bias of a slice of the queries as (B, Q, K), differentiable in the weights."""
        return torch.stack([self.rows(sample, queries) for sample in range(len(self.lidar))])

    def rows(self, sample: int, queries: slice | Tensor) -> Tensor:
        """Return the bias of some queries (slice or indices) of a sample as (Q, K), differentiable in the weights."""
        segments = [
            _dense(cell[queries], weight[queries], grid, window)
            for cell, weight, grid, window in self._segments(sample)
        ]
        if self.sensors is not None:
            segments = [bias + whole for bias, whole in zip(segments, self.sensors[sample], strict=True)]
        return torch.cat(segments, dim=-1)

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """The tensors that `with_weights` replaces."""
        return (self.lidar, self.cameras) if self.sensors is None else (self.lidar, self.cameras, self.sensors)

    def with_weights(self, lidar: Tensor, cameras: Tensor, sensors: Tensor | None = None) -> "WindowBias":
        """Return the same windows with other weights."""
        return replace(self, lidar=lidar, cameras=cameras, sensors=sensors)

    def _acting(self) -> Tensor:
        """Return the bias (B, Q, 1 + V) inside windows; 0 in removed sensors, which have no attention to change."""
        weights = torch.cat((self.lidar[..., None], self.cameras), dim=-1)
        if self.sensors is not None:
            weights = torch.where(self.sensors[:, None] > REMOVED / 2, weights, 0.0)
        return weights

    def _segments(self, sample: int) -> list[tuple[Tensor, Tensor, tuple[int, int], int]]:
        """Return cells (Q, 2), weights (Q,), grid and window of each segment."""
        bev = (self.cells.bev[sample], self.lidar[sample], self.layout.bev, self.bev_window)
        cameras = [
            (self.cells.image[sample, :, view], self.cameras[sample, :, view], self.layout.image, self.image_window)
            for view in range(self.layout.views)
        ]
        return [bev, *cameras]


def build(
    cells: QueryCells,
    lidar: Tensor,
    cameras: Tensor,
    layout: TokenLayout,
    options: AqrOptions,
    signed_scale: Tensor | None = None,
) -> WindowBias:
    """Return the bias of LiDAR weights (B, Q) and camera weights (B, Q, V), scaled by ``options.strength``.

    Args:
        cells: cells of the queries, the centres of the windows.
        lidar, cameras: weights in 0..1, or signed ones.
        layout: layout of the tokens.
        options: strength, and window sizes as in `AqrOptions.resolved`.
        signed_scale: () scale of the signed bias, 2 w - 1 for a weight w; None for the additive one, w.
    """
    if signed_scale is not None:
        lidar, cameras = (signed_scale * (2 * weights - 1) for weights in (lidar, cameras))
    return WindowBias(
        cells,
        options.strength * torch.where(cells.bev_inside, lidar.float(), 0.0),
        options.strength * torch.where(cells.image_visible, cameras.float(), 0.0),
        layout,
        options.bev_window,
        options.image_window,
    )


def acting_bias(
    cells: QueryCells, weights: RouterWeights, signed_scale: Tensor | None, layout: TokenLayout, options: AqrOptions
) -> WindowBias | None:
    """Return the bias of a router's weights in the mode of the options; None if the mode has no bias."""
    if options.gates and weights.log_weights is not None:
        return gate_bias(cells, weights.log_weights, layout, options)
    if not options.biases:
        return None
    scale = signed_scale if options.bias == "signed" else None
    return build(cells, weights.modality[..., 0], weights.cameras, layout, options, scale)


def gate_bias(cells: QueryCells, log_weights: Gate, layout: TokenLayout, options: AqrOptions) -> WindowBias:
    """Return the bias of a gate: ``options.strength`` times the log-weights.

    A query's own weights count relative to the largest one of the sensors that see it: where a single sensor sees it,
    there is nothing to choose, and less attention in the window would only take away evidence.

    Args:
        cells: cells of the queries, the centres of the windows.
        log_weights: of the gate; `REMOVED` removes keys at any strength.
        layout: layout of the tokens.
        options: strength, and window sizes as in `AqrOptions.resolved`.
    """
    lidar, cameras, sensors = log_weights
    own = relative_to_best(torch.cat((lidar[..., None], cameras), dim=-1), cells.seen)
    lidar, cameras, sensors = (
        torch.where(log > REMOVED, options.strength * log, REMOVED) for log in (own[..., 0], own[..., 1:], sensors)
    )
    return WindowBias(
        cells,
        torch.where(cells.bev_inside, lidar, 0.0),
        torch.where(cells.image_visible, cameras, 0.0),
        layout,
        options.bev_window,
        options.image_window,
        sensors,
    )


def _dense(cell: Tensor, weight: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """Return (Q, rows * columns): the weight inside each query's window, 0 outside."""
    near_row = near(torch.arange(grid[0], device=cell.device) - cell[:, :1], window)
    near_column = near(torch.arange(grid[1], device=cell.device) - cell[:, 1:], window)
    inside = near_row[:, :, None] & near_column[:, None, :]
    return torch.where(inside.flatten(1), weight[:, None], 0.0)
