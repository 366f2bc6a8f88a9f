# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Projection of reference points to cells of the BEV grid and of each camera's token grid."""

from typing import NamedTuple

import torch
from torch import Tensor

from aqr_perception.models.tokens import TokenLayout

LEAST_DEPTH = 1e-5
"""Depth in metres below which a point counts as behind the camera."""


class QueryCells(NamedTuple):
    """Cells of the queries; a cell is valid only if its flag is true.

    Attributes:
        bev: (B, Q, 2) int64, row (y) and column (x) in the BEV grid.
        bev_inside: (B, Q) bool, whether the query is inside the BEV grid.
        image: (B, Q, V, 2) int64, row and column in each camera's token grid.
        image_visible: (B, Q, V) bool, whether the camera sees the query; several cameras may see it.
    """

    bev: Tensor
    bev_inside: Tensor
    image: Tensor
    image_visible: Tensor

    @property
    def seen(self) -> Tensor:
        """(B, Q, 1 + V) bool, whether the LiDAR and each camera see the query."""
        return torch.cat((self.bev_inside[..., None], self.image_visible), dim=-1)


def project(
    points: Tensor,
    bev_range: tuple[float, float, float, float],
    lidar_to_image: Tensor,
    image_size: tuple[int, int],
    layout: TokenLayout,
) -> QueryCells:
    """Return the cells of (B, Q, 3) points in metres, model frame.

    Points outside the grid, outside an image or behind a camera get a false flag instead of the nearest cell. A camera
    projects as ``(u d, v d, d) = lidar_to_image (x, y, z, 1)`` with pixels u, v and depth d.

    Args:
        bev_range: x_min, y_min, x_max, y_max of the BEV grid in metres; see `Preset.bev_range`.
        lidar_to_image: (B, V, 4, 4), model frame -> pixels.
        image_size: height and width of the images in pixels.
        layout: sizes of the BEV grid and of the token grids.

    Raises:
        ValueError: ``bev_range`` has other than four numbers, for example a point range with heights.
    """
    if len(bev_range) != 4:
        raise ValueError(f"bev_range is {bev_range}, but must be x_min, y_min, x_max, y_max; use Preset.bev_range")
    points = points.detach().float()
    lower = points.new_tensor(bev_range[:2])
    extent = points.new_tensor(bev_range[2:]) - lower
    bev, inside = _cells((points[..., :2] - lower) / extent, layout.bev)

    homogeneous = torch.nn.functional.pad(points, (0, 1), value=1.0)
    # A projection is a small difference of large products: in half precision it would be several cells off.
    with torch.autocast(points.device.type, enabled=False):
        projected = torch.einsum("bvij,bqj->bqvi", lidar_to_image.float(), homogeneous)
    depth = projected[..., 2]
    size = points.new_tensor((max(image_size[1], 1), max(image_size[0], 1)))
    image, visible = _cells(projected[..., :2] / depth.clamp(min=LEAST_DEPTH)[..., None] / size, layout.image)
    return QueryCells(bev, inside, image, visible & (depth > LEAST_DEPTH))


def _cells(position: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return (..., 2) row and column of positions (x, y) in 0..1, and whether they are inside the grid (NaN is not)."""
    inside = ((position >= 0) & (position < 1)).all(-1) & (min(grid) > 0)
    position = torch.where(inside[..., None], position, 0.0)
    cell = (position * position.new_tensor((grid[1], grid[0]))).long()
    return cell.flip(-1), inside
