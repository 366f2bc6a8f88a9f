"""The router's own loss: a query's weights ought to be the health of the sensors at the place it looks at."""

import torch
from torch import Tensor
from torch.nn import functional as F

from aqr_perception.data.batch import Batch
from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.model_io import QueryWeights


def router_loss(weights: QueryWeights, cells: QueryCells, batch: Batch) -> Tensor:
    """Return a scalar: the binary cross entropy of LiDAR, camera and camera modality weights, each averaged, summed up.

    All queries count alike, denoising queries too. The targets are

    - of the LiDAR weight: the LiDAR's health at the query, inside the BEV grid, in samples that have LiDAR tokens;
    - of each camera's weight: its health where the query lies in its picture, for cameras that see the query;
    - of the camera modality's weight: the best of these, for queries that a camera sees.

    With soft targets the least loss, at weights equal to health, is their entropy and not 0.

    Args:
        weights: the router's, of B samples, Q queries and V cameras.
        cells: of the same queries, in the grids of the weights' maps.
        batch: its healths and points are used.
    """
    # Cross entropy of probabilities is refused under autocast, and half precision has none near 1.
    with torch.autocast(weights.modality.device.type, enabled=False):
        modality, cameras = weights.modality.float(), weights.cameras.float()
        lidar_target = _health_at(batch.lidar_health[:, None], cells.bev[:, :, None], weights.bev_map.shape[-2:])[
            ..., 0
        ]
        loss = _cross_entropy(modality[..., 0], lidar_target, cells.bev_inside & _has_tokens(batch, modality))
        visible = cells.image_visible
        if visible.shape[-1] == 0:
            return loss
        camera_target = _health_at(batch.camera_health, cells.image, weights.camera_maps.shape[-2:])
        best = camera_target.masked_fill(~visible, 0.0).amax(-1)
        loss = loss + _cross_entropy(cameras, camera_target, visible)
        return loss + _cross_entropy(modality[..., 1], best, visible.any(-1))


def _health_at(health: Tensor, cells: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Return (B, Q, V) bilinear samples of health maps (B, V, r, c) at the centres of cells (B, Q, V, 2) of a grid."""
    batch, queries, views = cells.shape[:3]
    size = cells.new_tensor([max(size, 1) for size in grid])
    place = (2 * (cells + 0.5) / size - 1).flip(-1).float()  # (x, y) in -1..1
    place = place.transpose(1, 2).reshape(batch * views, queries, 1, 2)
    sampled = F.grid_sample(health.flatten(0, 1)[:, None].float(), place, padding_mode="border", align_corners=False)
    return sampled.view(batch, views, queries).transpose(1, 2)


def _has_tokens(batch: Batch, modality: Tensor) -> Tensor:
    """Return (B, 1) bool: which samples have LiDAR tokens; an empty cloud has none."""
    if batch.points is None:
        return torch.zeros(modality.shape[0], 1, dtype=torch.bool, device=modality.device)
    return torch.tensor([[len(cloud) > 0] for cloud in batch.points], device=modality.device)


def _cross_entropy(probability: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Return the mean over the entries that count; 0 where none does."""
    losses = F.binary_cross_entropy(torch.where(counts, probability, 0.5), target.clamp(0, 1), reduction="none")
    return (losses * counts).sum() / counts.sum().clamp(min=1)
