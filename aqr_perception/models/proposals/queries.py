# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Proposals as queries of a model, for all architectures with proposals."""

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.config.presets import Preset
from aqr_perception.models.model_io import Features, ProposalMaps, ProposalRanges, Queries
from aqr_perception.models.proposals.correlation import sensor_agreement
from aqr_perception.models.proposals.proposal_head import ProposalHead

_SHARE_AT_START = 0.01


def proposal_head(preset: Preset) -> ProposalHead | None:
    """Return the proposal head of a preset, with random weights; None for presets without proposals."""
    decoder = preset.decoder
    if decoder.proposals.count == 0:
        return None
    return ProposalHead(
        decoder.channels if preset.points is None else 2 * preset.points.neck_channels,
        decoder.channels,
        decoder.channels,
        len(preset.classes),
        preset.point_range,
        preset.bev_range,
        decoder.proposals.bev,
        decoder.proposals.image,
    )


def propose(head: ProposalHead | None, features: Features) -> ProposalMaps | None:
    """Return a head's heat maps for (B, C, H, W) BEV and (B, V, C, h, w) image features; None without a head."""
    if head is None:
        return None
    maps: ProposalMaps = head(features.bev, features.image, features.lidar_to_image, features.image_size)
    return maps


def place_proposals(
    queries: Queries, head: ProposalHead | None, maps: ProposalMaps | None, features: Features
) -> Queries:
    """Return the queries with proposals in place of the first ones after the denoising queries.

    Args:
        queries: learned and denoising queries of the batch.
        head: the model's proposal head; without one, the queries are returned unchanged.
        maps: the result of `propose`.
        features: the features of the maps.
    """
    if head is None or maps is None:
        return queries
    denoising, matching = queries.reference_points.tensor_split((queries.denoising,), dim=1)
    has_bev = torch.tensor(features.has_points, device=matching.device)
    placed = head.queries(
        maps,
        (features.bev, features.image),
        matching,
        has_bev,
        features.lidar_to_image,
        features.image_size,
        (features.removed_bev, features.removed_image),
    )
    # Denoising queries have only a reference point.
    content, class_logits = (
        F.pad(values, (0, 0, queries.denoising, 0)) for values in (placed.content, placed.class_logits)
    )
    return queries._replace(
        reference_points=torch.cat((denoising, placed.points), dim=1),
        content=content,
        class_logits=class_logits,
        codes=torch.cat((head.default_codes(denoising), placed.codes), dim=1),
        at_proposals=ProposalRanges.after(queries.denoising, head.bev_count, head.image_count),
    )


def compare_sensors(queries: Queries, head: ProposalHead, maps: ProposalMaps, features: Features) -> Queries:
    """Return queries at proposals with the agreement of the sensors; see `sensor_agreement`.

    Args:
        queries: the result of `place_proposals` for the other arguments.
        head: the model's proposal head.
        maps: the result of `propose`.
        features: the features of the maps.
    """
    if queries.class_logits is None or queries.at_proposals is None:
        return queries
    points, lidar = head.metres(queries.reference_points), queries.at_proposals.lidar
    return queries._replace(
        agreement=sensor_agreement(maps, points, queries.class_logits, lidar, features, head.bev_range)
    )


def start_at_proposals(boxes: Iterable[nn.Module], classes: Iterable[nn.Module]) -> None:
    """Scale down the last layers of prediction heads, which correct the proposals' boxes and class logits.

    An untrained decoder then leaves the proposals nearly as they are. With the usual initial weights, it displaces
    boxes by 3 to 14 m, and the first part of a training only unlearns this.

    Args:
        boxes: heads of box codes, `nn.Sequential` or modules that contain some. Their last layers lose their biases.
        classes: heads of class logits. The biases, which hold the prior probability, stay.
    """
    with torch.no_grad():
        for last in _last_layers(boxes):
            last.weight.mul_(_SHARE_AT_START)
            nn.init.zeros_(cast(Tensor, last.bias))
        for last in _last_layers(classes):
            last.weight.mul_(_SHARE_AT_START)


def _last_layers(heads: Iterable[nn.Module]) -> list[nn.Linear | nn.Conv1d]:
    """Return the last layers of all sequences in modules, each once: layers of a decoder may share a head."""
    sequences = [part for part in nn.ModuleList(heads).modules() if isinstance(part, nn.Sequential)]
    return [part[-1] for part in sequences if isinstance(part[-1], nn.Linear | nn.Conv1d)]
