# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Router loss: cross entropy between a query's sensor weights and the sensors' health at the query's position.

A gate's weights are products of a query's own weight and of the trust in the sensor, and the trust has a target, too.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from aqr_perception.data.batch import Batch
from aqr_perception.models.aqr.gate import Gate
from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.model_io import QueryWeights
from aqr_perception.models.tokens import TokenLayout

BROKEN_COUNTS = 4.0
"""How many healthy places a broken one counts in the loss of a gate.

A comparison of sensors leaves doubt, and the weight of a doubtful sensor is close to the share of healthy ones in
training, however bad it looks. Most frames in training are healthy; this brings the share nearer to a half.
"""

_BROKEN = 0.5
_LEAST_LOG = 1e-6
_LEAST_HEALTH = 1e-3


def router_loss(weights: QueryWeights, cells: QueryCells, batch: Batch, layout: TokenLayout) -> Tensor:
    """Return the () sum of the mean binary cross entropies of LiDAR, camera and camera modality weights.

    All queries, including denoising ones, count equally. The targets are

    - for the LiDAR weight: the LiDAR's health at the query, inside the BEV grid, in samples that have LiDAR tokens;
    - for each camera's weight: the camera's health at the query's image position, for cameras that see the query;
    - for the camera modality weight: the largest of these targets, for queries that a camera sees.

    The targets are soft: weights equal to the health have the smallest loss, which is their entropy and not 0.

    Args:
        weights: router weights of B samples, Q queries and V cameras.
        cells: cells of the same queries.
        batch: health of the sensors, and the samples' points.
        layout: grids of the cells, over the areas of the health maps and at least as fine: a ghost is smaller than a
            token of a coarse one.
    """
    # Autocast does not support the cross entropy of probabilities, and half precision has too few values near 1.
    with torch.autocast(weights.modality.device.type, enabled=False):
        modality, cameras = weights.modality.float(), weights.cameras.float()
        lidar_health = _health_at(batch.lidar_health[:, None], cells.bev[:, :, None], layout.bev)
        has_lidar = cells.bev_inside & _has_tokens(batch, modality)
        loss = _cross_entropy(modality[..., 0], lidar_health[..., 0], has_lidar)
        visible = cells.image_visible
        if visible.shape[-1] == 0:
            return loss
        camera_health = _health_at(batch.camera_health, cells.image, layout.image)
        best = camera_health.masked_fill(~visible, 0.0).amax(-1)
        loss = loss + _cross_entropy(cameras, camera_health, visible)
        return loss + _cross_entropy(modality[..., 1], best, visible.any(-1))


def gate_loss(gate: Gate, cells: QueryCells, batch: Batch, layout: TokenLayout) -> Tensor:
    """Return the () sum of the mean binary cross entropies of the queries' own weights and of a gate's trusts.

    Places and sensors with a health below 0.5 count `BROKEN_COUNTS` times.

    The target of the trust in a sensor is its health where it is best: a sensor that is right somewhere is not at fault
    as a whole. The target of a query's own weight is the health there, as in `router_loss`, relative to that: only so,
    the few places where a working sensor is wrong, such as ghosts, do not drown among those of broken sensors. The
    product of both targets is the health.

    Args:
        gate: logits of B samples, Q queries and V cameras.
        cells, batch, layout: see `router_loss`.
    """
    with torch.autocast(gate.lidar.device.type, enabled=False):
        gate = Gate(*(logits.float() for logits in gate))
        lidar_health = _health_at(batch.lidar_health[:, None], cells.bev[:, :, None], layout.bev)
        has_lidar = _has_tokens(batch, gate.sensors)
        best = batch.lidar_health.flatten(1).amax(1, keepdim=True)
        own = relative_health(lidar_health[..., 0], best)
        loss = _log_cross_entropy(F.logsigmoid(gate.lidar), own, cells.bev_inside & has_lidar)
        whole, counts = [best], [has_lidar]
        visible = cells.image_visible
        if visible.shape[-1]:
            camera_health = _health_at(batch.camera_health, cells.image, layout.image)
            best = batch.camera_health.flatten(2).amax(-1)
            own = relative_health(camera_health, best[:, None])
            loss = loss + _log_cross_entropy(F.logsigmoid(gate.cameras), own, visible)
            whole.append(best)
            counts.append(torch.ones_like(whole[-1], dtype=torch.bool))
        trust = F.logsigmoid(gate.sensors)
        return loss + _log_cross_entropy(trust, torch.cat(whole, dim=1).float(), torch.cat(counts, dim=1))


def relative_health(health: Tensor, best: Tensor) -> Tensor:
    """Return health relative to the sensor's best; 1 where a sensor has none anywhere, which its trust says."""
    return torch.where(best > 0, health / best.clamp(min=_LEAST_HEALTH), 1.0)


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


def _log_cross_entropy(log_probability: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Return the mean of the cross entropies over the entries with a true `counts`, from logarithms below 0.

    Entries with a target below 0.5 count `BROKEN_COUNTS` times.
    """
    # Rounding makes sums of logarithms 0, where the other outcome would have an infinite loss.
    found = torch.where(counts, log_probability, -1.0).clamp(max=-_LEAST_LOG)
    target = target.clamp(0, 1)
    losses = -(target * found + (1 - target) * torch.log(-torch.expm1(found)))
    weight = torch.where(target < _BROKEN, BROKEN_COUNTS, 1.0) * counts
    return (losses * weight).sum() / weight.sum().clamp(min=1)
