# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Spatial cross-attention of BEV cells to the cameras that see them (BEVFormer, 3.3)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from aqr_perception.models.bevformer.deformable_attention import Sampling, Shapes, attend

_NEAREST = 1e-5
"""Depth in metres below which a point counts as behind the camera."""
_MARGIN = 0.5
"""Distance in metres of the pillars' lowest and highest point from the point range's floor and ceiling."""


def pillars(point_range: tuple[float, ...], grid: tuple[int, int], heights: int) -> Tensor:
    """Return (N, heights, 3) points above each cell's centre, row by row, in metres, model frame.

    Args:
        point_range: x, y, z minimum and maximum in metres.
        grid: rows (y) and columns (x).
        heights: number of evenly spaced points, lowest first.
    """
    x_min, y_min, z_min, x_max, y_max, z_max = point_range
    rows, columns = grid
    y = y_min + (torch.arange(rows) + 0.5) * ((y_max - y_min) / rows)
    x = x_min + (torch.arange(columns) + 0.5) * ((x_max - x_min) / columns)
    z = torch.linspace(z_min + _MARGIN, z_max - _MARGIN, heights)
    y, x, z = torch.meshgrid(y, x, z, indexing="ij")
    return torch.stack((x, y, z), dim=-1).flatten(0, 1)


class Visibility(NamedTuple):
    """Projection of the pillars into the cameras.

    Attributes:
        places: (B, V, N, heights, 2), positions of the pillars' points in every image, x and y in 0..1.
        visible: (B, V, N) bool, whether any point of the pillar lies in the image.
        cells: for each sample and camera, the indices of the cells that the camera sees.
    """

    places: Tensor
    visible: Tensor
    cells: tuple[tuple[Tensor, ...], ...]

    @property
    def shares(self) -> Tensor:
        """(B, V, N), each camera's share in the evidence of a cell; all 0 for a cell that no camera sees."""
        return self.visible.float() / self.visible.sum(1, keepdim=True).clamp(min=1)


def project_pillars(points: Tensor, lidar_to_image: Tensor, image_size: tuple[int, int]) -> Visibility:
    """Project the pillars into the cameras.

    Args:
        points: (N, heights, 3) in metres, model frame.
        lidar_to_image: (B, V, 4, 4), model frame -> pixels.
        image_size: height and width of the images in pixels.
    """
    # A projection is a small difference of large products: in half precision it would be several cells off.
    with torch.autocast(points.device.type, enabled=False):
        homogeneous = torch.nn.functional.pad(points, (0, 1), value=1.0)
        projected = torch.einsum("bvij,nhj->bvnhi", lidar_to_image.float(), homogeneous)
    depth = projected[..., 2]
    size = points.new_tensor((max(image_size[1], 1), max(image_size[0], 1)))
    places = projected[..., :2] / depth.clamp(min=_NEAREST)[..., None] / size
    inside = (depth > _NEAREST) & ((places > 0) & (places < 1)).all(-1)
    visible = inside.any(-1)
    cells = tuple(tuple(view.nonzero()[:, 0] for view in sample) for sample in visible)
    return Visibility(places, visible, cells)


class SpatialCrossAttention(nn.Module):
    """Deformable attention to each camera's maps for the cells that it sees, averaged over the cells' cameras."""

    def __init__(self, channels: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.deformable_attention = Sampling(channels, heads, levels, points)
        self.output_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.output_proj.weight)
        nn.init.zeros_(self.output_proj.bias)

    def forward(self, queries: Tensor, features: Tensor, shapes: Shapes, visibility: Visibility) -> Tensor:
        """Return the queries (B, N, C) plus the attended image features, which are 0 for cells that no camera sees.

        Args:
            queries: (B, N, C), one per cell; as published, without position.
            features: (B, V, cells of all levels, C).
            shapes: rows and columns of the levels.
            visibility: each sample's visible cells; the authors use the first sample's for the whole batch.
        """
        attention = self.deformable_attention
        offsets, weights = (part[:, :, :, 0] for part in attention.points(queries, shapes))
        values = attention.values(features)
        heights = visibility.places.shape[3]
        total = torch.zeros_like(queries, dtype=torch.float32)
        for sample, cameras in enumerate(visibility.cells):
            for view, cells in enumerate(cameras):
                # Point p of a head starts from height p mod heights.
                chosen = offsets[sample, cells]
                by_height = chosen.reshape(*chosen.shape[:3], -1, heights, 2)
                places = (by_height + visibility.places[sample, view, cells][:, None, None, None]).flatten(3, 4)
                attended = attend(values[sample, view][None], shapes, places[None], weights[sample, cells][None])
                total[sample].index_add_(0, cells, attended[0])
        cameras_per_cell = visibility.visible.sum(1).clamp(min=1)
        output: Tensor = queries + self.output_proj(total / cameras_per_cell[..., None])
        return output
