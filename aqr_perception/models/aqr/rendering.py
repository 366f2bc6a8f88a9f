"""Rendering of query weights as Gaussian maps over the BEV grid and over each camera's token grid."""

import torch
from torch import Tensor

from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import AqrOptions

MAP_LIMIT = 1.5
"""Largest value of a map, for any number of queries in a cell."""


def render_bev(weights: Tensor, cells: QueryCells, layout: TokenLayout, options: AqrOptions) -> Tensor:
    """Return (B, H, W) maps in [0, 1.5] of the queries' LiDAR weights (B, Q).

    Each query inside the grid contributes a Gaussian with its weight as peak; ``options`` gives sigma, threshold and
    reduction.
    """
    return _render(weights, cells.bev, cells.bev_inside, layout.bev, options)


def render_cameras(weights: Tensor, cells: QueryCells, layout: TokenLayout, options: AqrOptions) -> Tensor:
    """Return (B, V, h, w) maps in [0, 1.5] of the queries' weights by camera (B, Q, V).

    Each query contributes a Gaussian to the map of each camera that sees it; see `render_bev`.
    """
    batch, _, views = weights.shape
    by_view, cells_by_view, visible = (
        tensor.transpose(1, 2).flatten(0, 1) for tensor in (weights, cells.image, cells.image_visible)
    )
    maps = _render(by_view, cells_by_view, visible, layout.image, options)
    return maps.view(batch, views, *layout.image)


def clip(maps: Tensor, min_weight: float) -> Tensor:
    """Return maps with values below ``min_weight`` set to 0 and values above `MAP_LIMIT` set to it."""
    return torch.where(maps < min_weight, 0.0, maps).clamp(max=MAP_LIMIT)


def _render(weights: Tensor, cells: Tensor, visible: Tensor, grid: tuple[int, int], options: AqrOptions) -> Tensor:
    """Return (N, rows, columns) maps of (N, Q) weights at (N, Q, 2) cells; only queries with `visible` (N, Q) count."""
    rows, columns = grid
    maps = weights.new_zeros(weights.shape[0], rows * columns, dtype=torch.float32)
    if maps.numel() == 0:
        return maps.view(weights.shape[0], rows, columns)
    radius = max(1, round(3 * options.sigma))
    steps = torch.arange(-radius, radius + 1, device=weights.device)
    offsets = torch.cartesian_prod(steps, steps)
    falloff = torch.exp(-(offsets**2).sum(-1) / (2 * options.sigma**2))

    splats = cells[:, :, None] + offsets  # (N, Q, S, 2)
    row, column = splats.unbind(-1)
    inside = visible[..., None] & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    index = torch.where(inside, row * columns + column, 0).flatten(1)
    values = torch.where(inside, weights.float()[..., None] * falloff, 0.0).flatten(1)
    reduce = "amax" if options.reduce == "max" else "sum"
    maps = maps.scatter_reduce(1, index, values, reduce)
    return clip(maps, options.min_weight).view(weights.shape[0], rows, columns)
