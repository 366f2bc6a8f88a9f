# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Maps of query weights over the BEV grid and the cameras' grids, as the research code renders them.

`gaussian`, `bilinear`, `direct` and `distance_weighted` add each query to the map around its cell. They take weights
(B, Q), cells (B, Q, 3) as view, row and column (any number type, may be fractional or outside), and the maps' size
(views, rows, columns), and return unlimited (B, V, H, W) maps. A weight of 0 leaves a query out. All maps are float32
(float64 from float64 weights), under autocast too, and differentiable in the weights.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from aqr_perception.models.aqr_cmt.aqr_cmt_options import Method

Size = tuple[int, int, int]
Window = tuple[Tensor, Tensor, Tensor]
"""A square of n x n cells for each query: views (B, Q, 1, 1), rows (B, Q, n, 1) and columns (B, Q, 1, n)."""

MIN_WEIGHT = 0.01
"""Queries with smaller weights add nothing, and smaller values of a map become 0."""


def gaussian_kernel(sigma: float) -> Tensor:
    """Return the (n, n) Gaussian with sum 1, where n = int(6 sigma + 1), or the next odd number."""
    reach = int(6 * sigma + 1) // 2
    distances = torch.arange(-reach, reach + 1, dtype=torch.float32)
    falloff = torch.exp(-(distances**2) / (2 * sigma**2))
    kernel = torch.outer(falloff, falloff)
    return kernel / kernel.sum()


def render_bev(
    weights: Tensor,
    cells: Tensor,
    grid: tuple[int, int],
    method: Method = "gaussian",
    *,
    kernel: Tensor,
    threshold: float = MIN_WEIGHT,
    limit: float = 1.5,
) -> Tensor:
    """Return (B, H, W) post-processed maps of LiDAR weights (B, Q) at cells (B, Q, 2) as row and column.

    Args:
        kernel: `gaussian_kernel`, which only the method "gaussian" uses.
        threshold, limit: see `post_process`.

    Raises:
        ValueError: for an unknown method.
    """
    # The research code limits the LiDAR weights to 0..1, but not the cameras'.
    weights = weights.clamp(0, 1)
    in_view = torch.cat((torch.zeros_like(cells[..., :1]), cells), dim=-1)
    maps = _render(weights, in_view, (1, *grid), method, kernel)
    return post_process(maps[:, 0], threshold, limit)


def render_cameras(
    weights: Tensor,
    cells: Tensor,
    views: int,
    grid: tuple[int, int],
    method: Method = "gaussian",
    *,
    kernel: Tensor,
    threshold: float = MIN_WEIGHT,
    limit: float = 1.5,
) -> Tensor:
    """Return (B, V, h, w) post-processed maps of camera weights (B, Q) at cells (B, Q, 3) as view, row and column.

    Args:
        kernel: `gaussian_kernel`, which only the method "gaussian" uses.
        threshold, limit: see `post_process`; 0 and infinity give the maps without post-processing.

    Raises:
        ValueError: for a method other than "gaussian" and "direct".
    """
    # The research code renders zeros with the other two methods: camera features would silently shrink to the residual.
    if method in ("bilinear", "distance_weighted"):
        raise ValueError(f'method "{method}" has no camera maps: choose "gaussian" or "direct"')
    return post_process(_render(weights, cells, (views, *grid), method, kernel), threshold, limit)


def post_process(maps: Tensor, threshold: float = MIN_WEIGHT, limit: float = 1.5) -> Tensor:
    """Return maps with values below ``threshold`` set to 0 and values above ``limit`` set to it."""
    return torch.where(maps < threshold, 0.0, maps).clamp(max=limit)


def gaussian(weights: Tensor, cells: Tensor, size: Size, kernel: Tensor) -> Tensor:
    """Return maps of kernels times weights around the queries' cells, cut at the borders."""
    centres = _truncated(cells)
    weights = torch.where(_inside(_window(centres, 0, 0), size), _counted(weights), 0.0)
    reach = kernel.shape[0] // 2
    return _scatter(weights * kernel.to(weights), _window(centres, -reach, reach), size, "sum")


def bilinear(weights: Tensor, cells: Tensor, size: Size) -> Tensor:
    """Return maps with each weight shared among the four cells around its query.

    A query with one of the four outside adds nothing, so those in the last row and column do not.
    """
    corners = _truncated(cells)
    window = _window(corners, 0, 1)
    weights = torch.where(_inside(window, size).all(-1, keepdim=True).all(-2, keepdim=True), _counted(weights), 0.0)
    # Between -1 and 0, a truncated corner lies behind its query, and two shares of the weight are negative.
    fraction = (cells - corners)[..., 1:].to(weights.dtype)
    rows, columns = torch.stack((1 - fraction, fraction), dim=-1).unbind(2)  # (B, Q, 2) each
    return _scatter(weights * rows[..., None] * columns[..., None, :], window, size, "sum")


def direct(weights: Tensor, cells: Tensor, size: Size) -> Tensor:
    """Return maps of the largest weight in each cell."""
    return _scatter(_counted(weights), _window(_truncated(cells), 0, 0), size, "amax")


def distance_weighted(weights: Tensor, cells: Tensor, size: Size) -> Tensor:
    """Return maps of weights times ``exp(-d / (0.8 D))`` at distances d <= D = 0.2 min(H, W) cells from the queries.

    Unlike with the other methods, a query just outside the grid adds to the cells near it.
    """
    reach = 0.2 * min(size[1:])
    steps = math.floor(reach) + 1
    window = _window(cells.floor(), -steps, steps)
    (_, rows, columns), (_, row, column) = window, _window(cells, 0, 0)
    weights = _counted(weights)
    distances = ((rows - row) ** 2 + (columns - column) ** 2).to(weights.dtype).sqrt()
    falloff = torch.where(distances <= reach, torch.exp(-distances / (0.8 * reach)), 0.0)
    return _scatter(weights * falloff, window, size, "sum")


def _render(weights: Tensor, cells: Tensor, size: Size, method: Method, kernel: Tensor) -> Tensor:
    if method == "gaussian":
        return gaussian(weights, cells, size, kernel)
    if method == "bilinear":
        return bilinear(weights, cells, size)
    if method == "direct":
        return direct(weights, cells, size)
    if method == "distance_weighted":
        return distance_weighted(weights, cells, size)
    raise ValueError(f'unknown method "{method}" for weight maps: choose one of {", ".join(get_args(Method))}')


def _counted(weights: Tensor) -> Tensor:
    """Return weights (B, Q, 1, 1) as float32 or float64, 0 for those that do not count: small or not a number."""
    weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
    return torch.where(weights >= MIN_WEIGHT, weights, 0.0)[..., None, None]


def _truncated(cells: Tensor) -> Tensor:
    # The research code rounds towards 0, so that cells between -1 and 0 fall in the first row or column.
    return cells.trunc() if cells.is_floating_point() else cells


def _window(centres: Tensor, first: int, last: int) -> Window:
    """Return the cells from ``first`` to ``last`` rows and columns off centres (B, Q, 3)."""
    view, row, column = centres[..., None, None].unbind(2)
    steps = torch.arange(first, last + 1, device=centres.device)
    return view, row + steps[:, None], column + steps


def _inside(window: Window, size: Size) -> Tensor:
    """Return (B, Q, n, n) bool: the cells inside the maps. Those that are not a number are not."""
    view, row, column = (_on_axis(place, count) for place, count in zip(window, size, strict=True))
    return view & row & column


def _on_axis(places: Tensor, count: int) -> Tensor:
    return (places >= 0) & (places < count)


def _scatter(values: Tensor, window: Window, size: Size, reduce: Literal["sum", "amax"]) -> Tensor:
    """Return (B, V, H, W) maps of values (B, Q, n, n) reduced by cell; those outside do not count."""
    batch, (views, rows, columns) = len(values), size
    maps = values.new_zeros(batch, views * rows * columns)
    if maps.numel() > 0:
        values = torch.where(_inside(window, size), values, 0.0)
        view, row, column = (
            torch.where(_on_axis(place, count), place, 0).long() for place, count in zip(window, size, strict=True)
        )
        index = (view * rows + row) * columns + column
        maps = maps.scatter_reduce(1, index.flatten(1), values.flatten(1), reduce)
    return maps.view(batch, *size)
