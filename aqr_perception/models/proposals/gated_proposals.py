# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""What a gate leaves of the proposals: their scores, and the evidence of the other sensor for them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from aqr_perception.models.aqr.gate import REMOVED, relative_to_best
from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.aqr.router import RouterWeights
from aqr_perception.models.model_io import Queries


def with_other_evidence(queries: Queries, cells: QueryCells, weights: RouterWeights | None, strength: float) -> Queries:
    """Return queries whose content has the evidence of the other sensor, as far as a gate trusts it there.

    Args:
        queries: with or without evidence; see `OtherSensor`.
        cells: cells of the queries.
        weights: weights of a gate; None for weights of 1.
        strength: exponent of the weights.
    """
    if queries.other is None or queries.content is None or queries.at_proposals is None:
        return queries
    from_lidar, from_cameras = queries.at_proposals
    visible = cells.image_visible[:, from_lidar].float()
    camera_weight, lidar_weight = visible, cells.bev_inside[:, from_cameras].float()
    if weights is not None:
        camera_weight = camera_weight * weights.cameras[:, from_lidar] ** strength
        lidar_weight = lidar_weight * weights.modality[:, from_cameras, 0] ** strength
    share = camera_weight / visible.sum(-1, keepdim=True).clamp(min=1)
    content = queries.content
    by_cameras = (queries.other.cameras * share[..., None].to(content.dtype)).sum(2)
    by_lidar = queries.other.lidar * lidar_weight[..., None].to(content.dtype)
    parts = (
        content[:, : from_lidar.start],
        content[:, from_lidar] + by_cameras,
        content[:, from_cameras] + by_lidar,
        content[:, from_cameras.stop :],
    )
    return queries._replace(content=torch.cat(parts, dim=1))


def with_gated_scores(queries: Queries, cells: QueryCells, weights: RouterWeights, scales: Tensor) -> Queries:
    """Return queries with the class scores of proposals, less what a gate takes from their sensors.

    The weight of a proposal's sensor at the query multiplies its score, as far as scores are small. It counts relative
    to the largest weight of the sensors that see the query: the score of an object that a single sensor sees stays. A
    camera's proposal has the largest weight of the cameras that see it.

    Args:
        queries: with or without proposals.
        cells: cells of the queries.
        weights: with the log-weights of a gate.
        scales: (2,), factors on the log-weights of the LiDAR and of the cameras.
    """
    if queries.class_logits is None or queries.at_proposals is None or weights.log_weights is None:
        return queries
    lidar, cameras, sensors = weights.log_weights
    whole = torch.cat((lidar[..., None], cameras), dim=-1) + sensors[:, None]
    whole = torch.where(cells.seen, relative_to_best(whole, cells.seen), -math.inf)
    by_lidar, by_camera = torch.where(cells.bev_inside, whole[..., 0], 0.0), whole[..., 1:]
    best = by_camera.amax(-1) if by_camera.shape[-1] else torch.zeros_like(by_lidar)
    best = torch.where(cells.image_visible.any(-1), best, 0.0)
    from_lidar, from_cameras = queries.at_proposals
    shift = torch.cat((scales[0] * by_lidar[:, from_lidar], scales[1] * best[:, from_cameras]), dim=1)
    # Other queries have no proposal.
    shift = F.pad(shift, (from_lidar.start, queries.class_logits.shape[1] - from_cameras.stop))
    return queries._replace(class_logits=queries.class_logits + shift[..., None].clamp(min=REMOVED))
