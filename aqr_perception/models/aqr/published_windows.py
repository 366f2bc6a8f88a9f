# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Cells and windows of the queries as in the code that trained the published routers (MoME and AQR-CMT).

They keep the quirks that the weights depend on; the router in `models/aqr` has none of these quirks.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from aqr_perception.models.aqr.gathered_windows import window_tokens
from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.tokens import TokenLayout

_NEAREST = 1e-5


class PublishedCells(NamedTuple):
    """Cells of the queries, one camera each.

    Attributes:
        bev: (B, Q, 2) int64, row (y) and column (x) in the BEV grid; may be outside the grid.
        view: (B, Q) int64, the query's camera.
        image: (B, Q, 2) int64, row and column in the camera's token grid.
    """

    bev: Tensor
    view: Tensor
    image: Tensor

    def query_cells(self, layout: TokenLayout) -> QueryCells:
        """Return the cells as valid cells of the sensors in use: each query has a BEV cell and a cell in one camera."""
        inside = torch.full(self.view.shape, layout.bev_tokens > 0, device=self.view.device)
        visible = torch.arange(layout.views, device=self.view.device) == self.view[..., None]
        image = self.image[:, :, None].expand(-1, -1, layout.views, -1)
        return QueryCells(self.bev, inside, image, visible)


class Windows(NamedTuple):
    """Each query's window of the BEV grid, then its window of one camera, for the sensors in use.

    Attributes:
        tokens: (B, Q, W) int64, indices of each sample's tokens; 0 outside the grid.
        inside: (B, Q, W) bool, whether the token is inside the grid.
    """

    tokens: Tensor
    inside: Tensor


def published_cells(
    points: Tensor,
    point_range: tuple[float, ...],
    lidar_to_image: Tensor,
    image_size: tuple[int, int],
    layout: TokenLayout,
) -> PublishedCells:
    """Return the cells of (B, Q, 3) points in metres, model frame.

    Args:
        point_range: x, y, z minimum and maximum in metres.
        lidar_to_image: (B, V, 4, 4), model frame -> pixels.
        image_size: height and width of the images in pixels.
        layout: sizes of the grids; cells of a missing sensor are (0, 0).
    """
    points = points.detach().float()
    nowhere = points.new_zeros(*points.shape[:2], 2, dtype=torch.int64)
    bev = _bev_cells(points, point_range, layout.bev) if layout.bev_tokens else nowhere
    if not layout.views:
        return PublishedCells(bev, nowhere[..., 0], nowhere)
    # A projection is a small difference of large products: in half precision it would be several cells off.
    with torch.autocast(points.device.type, enabled=False):
        view, image = _image_cells(points, lidar_to_image.float(), image_size, layout.image)
    return PublishedCells(bev, view, image)


def router_windows(cells: PublishedCells, layout: TokenLayout, bev_window: int, image_window: int) -> Windows:
    """Return the windows around the queries that the router attends to.

    Args:
        cells: cells of the queries, the centres of the windows.
        layout: layout of the tokens.
        bev_window, image_window: edge lengths in cells, odd; the grids' borders clip windows.
    """
    by_query = (*cells.view.shape, -1)
    tokens, inside = [cells.view.new_zeros(*cells.view.shape, 0)], [cells.view.new_zeros(*cells.view.shape, 0).bool()]
    if layout.bev_tokens:
        near, exists = window_tokens(cells.bev.flatten(0, 1), layout.bev, bev_window)
        tokens.append(near.view(by_query))
        inside.append(exists.view(by_query))
    if layout.views:
        near, exists = window_tokens(cells.image.flatten(0, 1), layout.image, image_window)
        start = layout.bev_tokens + cells.view * layout.tokens_per_view
        tokens.append(start[..., None] + near.view(by_query))
        inside.append(exists.view(by_query))
    return Windows(torch.cat(tokens, dim=-1), torch.cat(inside, dim=-1))


def _bev_cells(points: Tensor, point_range: tuple[float, ...], grid: tuple[int, int]) -> Tensor:
    """Return (B, Q, 2) rows and columns of (B, Q, 3) points."""
    rows, columns = grid
    column = torch.floor((points[..., 0] - point_range[0]) * (columns / (point_range[3] - point_range[0])))
    row = torch.floor((points[..., 1] - point_range[1]) * (rows / (point_range[4] - point_range[1])))
    # Quirk: a point outside the grid in x wraps around to the other side, one row further.
    token = (row * columns + column).long()
    return torch.stack((torch.div(token, columns, rounding_mode="floor"), token.remainder(columns)), dim=-1)


def _image_cells(
    points: Tensor, lidar_to_image: Tensor, image_size: tuple[int, int], grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return the camera (B, Q), and the row and column (B, Q, 2) in its image, of each of (B, Q, 3) points."""
    height, width = image_size
    homogeneous = torch.nn.functional.pad(points, (0, 1), value=1.0)
    projected = torch.einsum("bvij,bqj->bqvi", lidar_to_image, homogeneous)
    # Quirk: depths below 10 um become 10 um, so a point behind a camera and almost on its axis counts as visible.
    pixel = projected[..., :2] / projected[..., 2:3].clamp(min=_NEAREST)
    u, v = pixel.unbind(-1)
    visible = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    # Quirk: of the cameras that see a point, only the first in the list counts.
    view = visible.int().argmax(-1)
    pixel = pixel.gather(2, view[..., None, None].expand(-1, -1, 1, 2)).squeeze(2)
    # Quirk: the columns use the scale of the rows.
    cell = torch.floor(pixel.flip(-1) * (grid[0] / height))
    # Quirk: a point that no camera sees gets the upper left corner of the first camera.
    return view, torch.where(visible.any(-1)[..., None], cell, 0.0).long()
