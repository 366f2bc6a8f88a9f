"""Router loss: cross entropy between a query's sensor weights and the sensors' health at the query's position."""

import torch
from torch import Tensor
from torch.nn import functional as F

from aqr_perception.data.batch import Batch
from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.model_io import QueryWeights


def router_loss(weights: QueryWeights, cells: QueryCells, batch: Batch) -> Tensor:
    """Return the () sum of the mean binary cross entropies of LiDAR, camera and camera modality weights.

    All queries, including denoising ones, count equally. The targets are

    - for the LiDAR weight: the LiDAR's health at the query, inside the BEV grid, in samples that have LiDAR tokens;
    - for each camera's weight: the camera's health at the query's image position, for cameras that see the query;
    - for the camera modality weight: the largest of these targets, for queries that a camera sees.

    The targets are soft: weights equal to the health have the smallest loss, which is their entropy and not 0.

    Args:
        weights: router weights of B samples, Q queries and V cameras.
        cells: cells of the same queries on the grids of the weight maps.
        batch: health of the sensors on the areas of these grids, and the samples' points.
    """
    # Autocast does not support the cross entropy of probabilities, and half precision has too few values near 1.
    with torch.autocast(weights.modality.device.type, enabled=False):
        modality, cameras = weights.modality.float(), weights.cameras.float()
        lidar_health = _health_at(batch.lidar_health[:, None], cells.bev[:, :, None], weights.bev_map.shape[-2:])
        has_lidar = cells.bev_inside & _has_tokens(batch, modality)
        loss = _cross_entropy(modality[..., 0], lidar_health[..., 0], has_lidar)
        visible = cells.image_visible
        if visible.shape[-1] == 0:
            return loss
        camera_health = _health_at(batch.camera_health, cells.image, weights.camera_maps.shape[-2:])
        best = camera_health.masked_fill(~visible, 0.0).amax(-1)
        loss = loss + _cross_entropy(cameras, camera_health, visible)
        return loss + _cross_entropy(modality[..., 1], best, visible.any(-1))


def _health_at(health: Tensor, cells: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Return (B, Q, V) bilinear samples of health maps (B, V, r, c) at the centres of cells (B, Q, V, 2) of a grid.

    Map and grid cover the same area.
    """
    batch, queries, views = cells.shape[:3]
    size = cells.new_tensor([max(size, 1) for size in grid])
    place = (2 * (cells + 0.5) / size - 1).flip(-1).float()  # (x, y) in -1..1
    place = place.transpose(1, 2).reshape(batch * views, queries, 1, 2)
    sampled = F.grid_sample(health.flatten(0, 1)[:, None].float(), place, padding_mode="border", align_corners=False)
    return sampled.view(batch, views, queries).transpose(1, 2)


def _has_tokens(batch: Batch, modality: Tensor) -> Tensor:
    """Return (B, 1) bool, true for samples with LiDAR tokens; an empty point cloud has none."""
    if batch.points is None:
        return torch.zeros(modality.shape[0], 1, dtype=torch.bool, device=modality.device)
    return torch.tensor([[len(cloud) > 0] for cloud in batch.points], device=modality.device)


def _cross_entropy(probability: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Return the mean over the entries with a true `counts`; 0 without such entries."""
    losses = F.binary_cross_entropy(torch.where(counts, probability, 0.5), target.clamp(0, 1), reduction="none")
    return (losses * counts).sum() / counts.sum().clamp(min=1)
