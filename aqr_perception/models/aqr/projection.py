"""Reference points -> the cells of the BEV grid and of every camera's token grid in which they lie."""

from typing import NamedTuple

import torch
from torch import Tensor

from aqr_perception.models.tokens import TokenLayout

_NEAREST = 1e-5
"""Depth in metres below which a point counts as behind the camera."""


class QueryCells(NamedTuple):
    """Where queries lie. A cell means nothing where its flag is false.

    Attributes:
        bev: (B, Q, 2) int64, row (y) and column (x) of the BEV grid.
        bev_inside: (B, Q) bool.
        image: (B, Q, V, 2) int64, row and column of each camera's token grid.
        image_visible: (B, Q, V) bool; a query may be visible in several cameras.
    """

    bev: Tensor
    bev_inside: Tensor
    image: Tensor
    image_visible: Tensor


def project(
    points: Tensor,
    point_range: tuple[float, ...],
    lidar_to_image: Tensor,
    image_size: tuple[int, int],
    layout: TokenLayout,
) -> QueryCells:
    """Return the cells of (B, Q, 3) points in metres, model frame.

    Points outside the grid, outside an image or behind a camera are flagged, not moved to the border.

    Args:
        point_range: x, y, z minimum and maximum in metres.
        lidar_to_image: (B, V, 4, 4), model frame -> pixels.
        image_size: height and width of the images in pixels.
    """
    points = points.detach().float()
    lower = points.new_tensor(point_range[:2])
    extent = points.new_tensor(point_range[3:5]) - lower
    bev, inside = _cells((points[..., :2] - lower) / extent, layout.bev)

    homogeneous = torch.nn.functional.pad(points, (0, 1), value=1.0)
    # In half precision a projection would be several cells off: it is a small difference of large products.
    with torch.autocast(points.device.type, enabled=False):
        projected = torch.einsum("bvij,bqj->bqvi", lidar_to_image.float(), homogeneous)
    depth = projected[..., 2]
    size = points.new_tensor((max(image_size[1], 1), max(image_size[0], 1)))
    image, visible = _cells(projected[..., :2] / depth.clamp(min=_NEAREST)[..., None] / size, layout.image)
    return QueryCells(bev, inside, image, visible & (depth > _NEAREST))


def _cells(position: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return (..., 2) row and column, and whether (x, y) in 0..1 lies in the grid. NaN lies nowhere."""
    inside = ((position >= 0) & (position < 1)).all(-1) & (min(grid) > 0)
    position = torch.where(inside[..., None], position, 0.0)
    cell = (position * position.new_tensor((grid[1], grid[0]))).long()
    return cell.flip(-1), inside
