# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Tokens in the windows around the queries, gathered for the router."""

from typing import NamedTuple

import torch
from torch import Tensor

from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.tokens import TokenLayout


class GatheredWindows(NamedTuple):
    """Windows of one kind.

    Attributes:
        query: (P,) int64, the window's query, numbered over the batch.
        tokens: (P, W) int64, the window's tokens, numbered over the batch.
        inside: (P, W) bool, whether the token is inside the grid.
    """

    query: Tensor
    tokens: Tensor
    inside: Tensor


def bev_windows(cells: QueryCells, layout: TokenLayout, window: int) -> GatheredWindows:
    """Return the BEV windows of the queries inside the grid."""
    sample, query = cells.bev_inside.nonzero(as_tuple=True)
    tokens, inside = window_tokens(cells.bev[sample, query], layout.bev, window)
    return GatheredWindows(sample * cells.bev.shape[1] + query, sample[:, None] * layout.total + tokens, inside)


def image_windows(cells: QueryCells, layout: TokenLayout, window: int) -> GatheredWindows:
    """Return the windows of the queries in each camera that sees them."""
    sample, query, view = cells.image_visible.nonzero(as_tuple=True)
    tokens, inside = window_tokens(cells.image[sample, query, view], layout.image, window)
    start = sample * layout.total + layout.bev_tokens + view * layout.tokens_per_view
    return GatheredWindows(sample * cells.bev.shape[1] + query, start[:, None] + tokens, inside)


def window_tokens(cell: Tensor, grid: tuple[int, int], window: int) -> tuple[Tensor, Tensor]:
    """Return the (P, W) tokens of square windows around (P, 2) cells, and whether they are inside the grid."""
    steps = torch.arange(window, device=cell.device) - window // 2
    row, column = (cell[:, None] + torch.cartesian_prod(steps, steps)).unbind(-1)
    inside = (row >= 0) & (row < grid[0]) & (column >= 0) & (column < grid[1])
    return torch.where(inside, row * grid[1] + column, 0), inside
