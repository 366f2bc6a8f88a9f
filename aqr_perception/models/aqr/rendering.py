# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rendering of query weights as Gaussian maps over the BEV grid and over each camera's token grid."""

from dataclasses import replace

import torch
from torch import Tensor

from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import AqrOptions

MAP_LIMIT = 1.5
"""Largest magnitude of a map's values, for any number of queries in a cell."""

_LEAST_DENSITY = 0.01


def render_bev(weights: Tensor, cells: QueryCells, layout: TokenLayout, options: AqrOptions) -> Tensor:
    """Return (B, H, W) maps of the queries' LiDAR weights (B, Q).

    Each query inside the grid contributes a Gaussian with its weight as peak; ``options`` gives sigma, threshold and
    reduction. ``max`` takes the contribution of the largest magnitude with its sign, and 0 where the largest positive
    and negative ones are equal; ``sum`` adds all of them. Weights in 0..1 give maps in [0, 1.5], signed weights in
    [-1, 1] maps in [-1.5, 1.5]; opposite weights give opposite maps.
    """
    return _render(weights, cells.bev, cells.bev_inside, layout.bev, options)


def render_cameras(weights: Tensor, cells: QueryCells, layout: TokenLayout, options: AqrOptions) -> Tensor:
    """Return (B, V, h, w) maps of the queries' weights by camera (B, Q, V).

    Each query contributes a Gaussian to the map of each camera that sees it; see `render_bev`.
    """
    batch, _, views = weights.shape
    by_view, cells_by_view, visible = (
        tensor.transpose(1, 2).flatten(0, 1) for tensor in (weights, cells.image, cells.image_visible)
    )
    maps = _render(by_view, cells_by_view, visible, layout.image, options)
    return maps.view(batch, views, *layout.image)


def clip(maps: Tensor, min_weight: float) -> Tensor:
    """Return maps with magnitudes below ``min_weight`` set to 0, and limited to `MAP_LIMIT` of either sign."""
    return torch.where(maps.abs() < min_weight, 0.0, maps).clamp(-MAP_LIMIT, MAP_LIMIT)


def render_densities(
    lidar: Tensor, cameras: Tensor, cells: QueryCells, layout: TokenLayout, options: AqrOptions
) -> Tensor:
    """Return (B, K) maps as the research code scales features with them, flattened in token order.

    Each query adds its weight times a Gaussian of sum 1. Values below 0.01 become 0, and the largest is
    ``options.map_limit``.

    Args:
        lidar: (B, Q), weights of the LiDAR.
        cameras: (B, Q, V), weights of the cameras.
        cells: cells of the queries.
        layout: layout of the tokens.
        options: sigma and limit.
    """
    by_view, in_view, visible = (
        tensor.transpose(1, 2).flatten(0, 1) for tensor in (cameras, cells.image, cells.image_visible)
    )
    summed = replace(options, reduce="sum")
    bev = _splat(lidar, cells.bev, cells.bev_inside, layout.bev, summed, normalised=True)
    image = _splat(by_view, in_view, visible, layout.image, summed, normalised=True)
    maps = torch.cat((bev.flatten(1), image.reshape(len(lidar), layout.views * layout.tokens_per_view)), dim=1)
    return torch.where(maps < _LEAST_DENSITY, 0.0, maps).clamp(max=options.map_limit)


def _render(weights: Tensor, cells: Tensor, visible: Tensor, grid: tuple[int, int], options: AqrOptions) -> Tensor:
    """Return (N, rows, columns) maps of (N, Q) weights at (N, Q, 2) cells; only queries with `visible` (N, Q) count."""
    return clip(_splat(weights, cells, visible, grid, options), options.min_weight)


def _splat(
    weights: Tensor,
    cells: Tensor,
    visible: Tensor,
    grid: tuple[int, int],
    options: AqrOptions,
    normalised: bool = False,
) -> Tensor:
    """Return maps before clipping; see `_render`. Gaussians have a peak of 1, or, if `normalised`, a sum of 1."""
    rows, columns = grid
    maps = weights.new_zeros(weights.shape[0], rows * columns, dtype=torch.float32)
    if maps.numel() == 0:
        return maps.view(weights.shape[0], rows, columns)
    radius = max(1, round(3 * options.sigma))
    steps = torch.arange(-radius, radius + 1, device=weights.device)
    offsets = torch.cartesian_prod(steps, steps)
    falloff = torch.exp(-(offsets**2).sum(-1) / (2 * options.sigma**2))
    if normalised:
        falloff = falloff / falloff.sum()

    # A few of all pairs only: one or two of six cameras see a query.
    number, query = visible.nonzero(as_tuple=True)
    row, column = (cells[number, query][:, None] + offsets).unbind(-1)  # (P, S)
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    index = torch.where(inside, (number[:, None] * rows + row) * columns + column, 0).flatten()
    values = torch.where(inside, weights[number, query].float()[:, None] * falloff, 0.0).flatten()
    flat = maps.flatten()
    flat = _largest(flat, index, values) if options.reduce == "max" else flat.scatter_add(0, index, values)
    return flat.view(weights.shape[0], rows, columns)


def _largest(zeros: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """Return for each cell (K,) the value (S,) with the largest magnitude; 0 where opposite ones are equal."""
    cells = len(zeros)
    negative = values < 0
    # One reduction for both signs: magnitudes of negative values go to the second half.
    magnitudes = torch.cat((zeros, zeros)).scatter_reduce(
        0, torch.where(negative, index + cells, index), torch.where(negative, -values, values), "amax"
    )
    above, below = magnitudes.split(cells)
    # The difference is 0 for equal magnitudes, and NaN for weights that are not numbers.
    return torch.where(above > below, above, torch.where(above < below, -below, above - below))
