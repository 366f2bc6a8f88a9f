# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Agreement of the sensors: do the cameras see objects where the LiDAR's proposals are?

Whether a sensor is displaced or late shows in no sensor alone. The LiDAR's best proposals are therefore projected into
the cameras' heat maps, as they are and with offsets. The mean score at each offset is a cross-correlation: its peak
lies at the offset 0 where both sensors are right, and elsewhere where one of them is displaced.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from aqr_perception.models.aqr.agreement import GROUND_OFFSETS, IN_PICTURE, ON_GROUND, PICTURE_OFFSETS, SensorAgreement
from aqr_perception.models.model_io import Features, ProposalMaps
from aqr_perception.models.proposals.places import (
    bev_surroundings,
    bev_values,
    picture_cells,
    picture_values,
    score_evidence,
)
from aqr_perception.models.proposals.proposal_head import BOX_CHANNELS, CLASS_BIAS

COMPARED = 64
"""The LiDAR's best proposals that are compared with the pictures."""

_LEAST_SCORE = 1e-3
_MOST_RELATIVE = 5.0
_LOG_UNIT = 3.0


@torch.no_grad()
def sensor_agreement(
    maps: ProposalMaps,
    points: Tensor,
    class_logits: Tensor,
    proposals: slice,
    features: Features,
    bev_range: tuple[float, float, float, float],
) -> SensorAgreement | None:
    """Return the agreement of the sensors; None without LiDAR features. Without cameras, nothing is correlated.

    Args:
        maps: heat maps of both sensors.
        points: (B, Q, 3), reference points of the queries in metres, model frame.
        class_logits: (B, Q, classes) of the queries' proposals.
        proposals: the queries that start at the LiDAR's proposals, the best one first.
        features: the features of the maps.
        bev_range: x_min, y_min, x_max, y_max of the BEV map in metres.
    """
    if maps.bev is None or features.bev is None:
        return None
    with torch.autocast(points.device.type, enabled=False):
        points, has_points = points.float(), torch.tensor(features.has_points, device=points.device)
        heads = score_evidence(bev_values(maps.bev[:, :-BOX_CHANNELS].float(), points, bev_range, CLASS_BIAS))
        around = bev_surroundings(features.bev.float(), points, bev_range)
        at_lidar = has_points[:, None].repeat(1, points.shape[1])
        at_lidar[:, : proposals.start] = at_lidar[:, proposals.stop :] = False
        by_lidar = (heads * has_points[:, None, None], around * has_points[:, None, None], at_lidar)
        if maps.image is None or not maps.image.shape[1]:
            return _without_cameras(*by_lidar)
        image = maps.image[:, :, :-BOX_CHANNELS].float()
        cells = picture_cells(points[:, :, None], features, image.shape[-2:])
        found = slice(proposals.start, min(proposals.stop, proposals.start + COMPARED))
        score, label = class_logits[:, found].float().sigmoid().max(-1)
        score = score * has_points[:, None]
        beside = points.new_tensor(PICTURE_OFFSETS)
        around = F.pad(points.new_tensor(GROUND_OFFSETS), (0, 1))
        in_pictures = _scores_at(image, label, cells[:, :, found] + beside)
        moved = picture_cells(points[:, found, None] + around, features, image.shape[-2:])
        on_ground = _scores_at(image, label, moved)
        zero = len(PICTURE_OFFSETS) // 2, len(GROUND_OFFSETS) // 2
        return SensorAgreement(
            _correlation(on_ground.flatten(1, 2), score.repeat(1, image.shape[1]), zero[1]),
            _correlation(on_ground, score[:, None].expand(-1, image.shape[1], -1), zero[1]),
            _correlation(in_pictures, score[:, None].expand(-1, image.shape[1], -1), zero[0]),
            by_lidar[0],
            score_evidence(picture_values(image, cells[:, :, :, 0], CLASS_BIAS)),
            *by_lidar[1:],
        )


def _without_cameras(lidar_scores: Tensor, lidar_features: Tensor, at_lidar: Tensor) -> SensorAgreement:
    batch, queries, classes = lidar_scores.shape
    lidar, by_camera, cameras, camera_scores = (
        lidar_scores.new_zeros(batch, *shape)
        for shape in ((ON_GROUND,), (0, ON_GROUND), (0, IN_PICTURE), (queries, 0, classes))
    )
    return SensorAgreement(lidar, by_camera, cameras, lidar_scores, camera_scores, lidar_features, at_lidar)


def _scores_at(heat: Tensor, label: Tensor, cells: Tensor) -> Tensor:
    """Return the scores (B, V, N, O) of the labels (B, N) at cells (B, V, N, O, 2) of logits (B, V, C, h, w).

    NaN outside the picture.
    """
    rows, columns = heat.shape[-2:]
    inside = ((cells >= 0) & (cells < cells.new_tensor([columns, rows]))).all(-1)
    column, row = torch.where(inside[..., None], cells, 0.0).long().unbind(-1)
    index = (label[:, None, :, None] * rows + row) * columns + column
    scores = heat.flatten(2).gather(2, index.flatten(2)).view_as(index).sigmoid()
    return torch.where(inside, scores, float("nan"))


def _correlation(scores: Tensor, weight: Tensor, zero: int) -> Tensor:
    """Return the correlation (..., 2 + O) of scores (..., N, O) with NaN, weighted by (..., N).

    Entries: the logarithm of the mean score, that of the summed weights at the offset of index `zero`, and the mean
    score at each offset relative to the mean over all offsets.
    """
    inside = ~scores.isnan()
    weights = weight[..., None] * inside
    total = weights.sum(-2)
    seen = total[..., zero : zero + 1]
    # Where an offset leaves only a few objects in the picture, their scores count no more than without it.
    at_offset = (scores.nan_to_num() * weights).sum(-2) / total.maximum(seen).clamp(min=_LEAST_SCORE)
    mean = at_offset.mean(-1, keepdim=True)
    relative = (at_offset / mean.clamp(min=_LEAST_SCORE) - 1).clamp(max=_MOST_RELATIVE)
    return torch.cat(((mean + _LEAST_SCORE).log() / _LOG_UNIT + 1, seen.log1p() - 1, relative * (seen > 0)), dim=-1)
