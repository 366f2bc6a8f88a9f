# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Values of the sensors' maps at places in the model frame."""

import torch
import torch.nn.functional as F
from torch import Tensor

from aqr_perception.models.aqr.projection import LEAST_DEPTH
from aqr_perception.models.model_io import Features
from aqr_perception.models.proposals.proposal_head import CLASS_BIAS

_MOST = 5.0
_LOGIT_UNIT = 3.0
_OUTSIDE = 9.0


def picture_cells(points: Tensor, features: Features, size: tuple[int, ...]) -> Tensor:
    """Return the columns and rows (B, V, N, O, 2) of points (B, N, O, 3) in metres; NaN behind the camera.

    Args:
        features: the projections, and the images' size.
        size: rows and columns of the map over each image.
    """
    projections = features.lidar_to_image[:, :, :3].float()
    projected = torch.einsum("bvij,bnoj->bvnoi", projections, F.pad(points.float(), (0, 1), value=1.0))
    depth = projected[..., 2:]
    pixel = projected[..., :2] / torch.where(depth > LEAST_DEPTH, depth, float("nan"))
    height, width = features.image_size
    return pixel * pixel.new_tensor([size[1] / width, size[0] / height])


def picture_values(maps: Tensor, cells: Tensor, empty: float = 0.0) -> Tensor:
    """Return bilinear samples (B, N, V, C) of maps (B, V, C, h, w) at cells (B, V, N, 2), in float32.

    Outside the picture, and in part on its border, they are `empty`.
    """
    size = cells.new_tensor([maps.shape[-1], maps.shape[-2]])
    place = (2 * cells / size - 1).nan_to_num(_OUTSIDE).clamp(-_OUTSIDE, _OUTSIDE)
    sampled = F.grid_sample(maps.float().flatten(0, 1) - empty, place.flatten(0, 1)[:, None], align_corners=False)
    values: Tensor = sampled[:, :, 0].unflatten(0, maps.shape[:2]).permute(0, 3, 1, 2) + empty
    return values


def bev_values(
    maps: Tensor, points: Tensor, bev_range: tuple[float, float, float, float], empty: float = 0.0
) -> Tensor:
    """Return bilinear samples (B, N, C) of maps (B, C, H, W) at points (B, N, 3) in metres, in float32.

    Outside the map they are `empty`.

    Args:
        bev_range: x_min, y_min, x_max, y_max of the maps in metres.
    """
    lower = points.new_tensor(bev_range[:2])
    place = 2 * (points[..., :2] - lower) / (points.new_tensor(bev_range[2:]) - lower) - 1
    sampled = F.grid_sample(maps.float() - empty, place[:, None].float(), align_corners=False)
    values: Tensor = sampled[:, :, 0].transpose(1, 2) + empty
    return values


def bev_surroundings(maps: Tensor, points: Tensor, bev_range: tuple[float, float, float, float]) -> Tensor:
    """Return (B, N, 9 C): values of maps (B, C, H, W) in the 3 x 3 cells around points (B, N, 3) in metres.

    The cells are in the order of their rows; cells outside the map are 0.

    Args:
        bev_range: x_min, y_min, x_max, y_max of the maps in metres.
    """
    batch, _, rows, columns = maps.shape
    lower, upper = points.new_tensor(bev_range[:2]), points.new_tensor(bev_range[2:])
    cell = ((points[..., :2] - lower) / (upper - lower) * points.new_tensor([columns, rows])).floor().long()
    beside = torch.cartesian_prod(*2 * [torch.arange(-1, 2, device=points.device)]).flip(-1)
    column, row = (cell[:, :, None] + beside).unbind(-1)
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    sample = torch.arange(batch, device=points.device)[:, None, None]
    index = torch.where(inside, (sample * rows + row) * columns + column, 0)
    by_cell = maps.permute(0, 2, 3, 1).flatten(0, 2)
    values = by_cell.index_select(0, index.flatten()).view(*index.shape, -1) * inside[..., None]
    return values.flatten(2)


def score_evidence(logits: Tensor) -> Tensor:
    """Return class logits in units of about 1: 0 where a head is as sure as an untrained one that nothing is there."""
    return ((logits - CLASS_BIAS) / _LOGIT_UNIT).clamp(-1, _MOST)
