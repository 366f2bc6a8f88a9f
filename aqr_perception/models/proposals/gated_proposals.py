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


def with_scores_beside_lidar(
    queries: Queries, seen: Tensor, weights: RouterWeights | None, strength: float, logit: Tensor
) -> Queries:
    """Return queries with the logit added to the class scores of those at no LiDAR proposal, where the LiDAR sees.

    There, such a query is another sensor's word against the LiDAR's. A gate that does not trust the LiDAR at the query
    takes the logit back.

    Args:
        queries: with or without proposals; denoising ones stay as they are.
        seen: (B, Q) bool, whether the LiDAR sees the query.
        weights: weights of a gate; None for weights of 1.
        strength: exponent of the weights.
        logit: (1,), learned; below 0 where the LiDAR is the better sensor.
    """
    if queries.class_logits is None or queries.at_proposals is None:
        return queries
    trusted = seen.float()
    if weights is not None:
        trusted = trusted * weights.modality[..., 0] ** strength
    others = torch.ones_like(trusted)
    others[:, : queries.at_proposals.lidar.stop] = 0.0
    return queries._replace(class_logits=queries.class_logits + (logit * trusted * others)[..., None])


def with_gated_scores(queries: Queries, cells: QueryCells, weights: RouterWeights, scales: Tensor) -> Queries:
    """Return queries with the class scores of proposals, less what a gate takes from their sensors.

    The weight of a proposal's sensor multiplies its score, as far as scores are small. It is the product of two:

    - the trust in the sensor, relative to the largest one of the sensors that see the query: the score of an object
      that a single sensor sees does not depend on the trust;
    - the query's own weight, relative to the largest one of the sensor's proposals: what is doubted everywhere is
      nowhere a reason to drop an object.

    A camera's proposal has the largest weight of the cameras that see it.

    Args:
        queries: with or without proposals.
        cells: cells of the queries.
        weights: with the log-weights of a gate.
        scales: (2, 2), factors on the log-weights; see `Router.score_scales`.
    """
    if queries.class_logits is None or queries.at_proposals is None or weights.log_weights is None:
        return queries
    lidar, cameras, sensors = weights.log_weights
    trust = relative_to_best(sensors[:, None].expand(*lidar.shape, -1), cells.seen)
    from_lidar, from_cameras = queries.at_proposals
    parts = (
        (lidar[..., None], trust[..., :1], cells.bev_inside[..., None], from_lidar),
        (cameras, trust[..., 1:], cells.image_visible, from_cameras),
    )
    shifts = [_doubt(*part, scale) for scale, part in zip(scales, parts, strict=True)]
    # Other queries have no proposal.
    shift = F.pad(torch.cat(shifts, dim=1), (from_lidar.start, queries.class_logits.shape[1] - from_cameras.stop))
    return queries._replace(class_logits=queries.class_logits + shift[..., None].clamp(min=REMOVED))


def _doubt(own: Tensor, trust: Tensor, seen: Tensor, proposals: slice, scales: Tensor) -> Tensor:
    """Return the log-weights (B, P) of a modality's proposals; 0 for those that none of its sensors sees.

    Args:
        own, trust: (B, Q, S), log-weights of the queries, and of the modality's sensors relative to the best sensor.
        seen: (B, Q, S) bool, which sensors see which queries.
        proposals: the modality's proposals.
        scales: (2,), factors on `own` and on `trust`.
    """
    own, trust, seen = (part[:, proposals] for part in (own, trust, seen))
    if not own.shape[1] or not own.shape[2]:
        return own.new_zeros(own.shape[:2])
    across = relative_to_best(own.transpose(1, 2), seen.transpose(1, 2)).transpose(1, 2)
    best = torch.where(seen, scales[0] * across + scales[1] * trust, -math.inf).amax(-1)
    return torch.where(seen.any(-1), best, 0.0)
