"""How proposals get among a model's queries, whichever model it is."""

import torch
import torch.nn.functional as F
from torch import Tensor

from aqr_perception.frame import CLASSES
from aqr_perception.models.detection_model import Features
from aqr_perception.models.fusion_head import Queries
from aqr_perception.models.presets import Preset
from aqr_perception.models.proposals import ProposalHead, ProposalMaps


def proposal_head(preset: Preset) -> ProposalHead:
    """Return the head of a preset that asks for proposals, with random weights."""
    decoder = preset.decoder
    return ProposalHead(
        0 if preset.points is None else 2 * preset.points.neck_channels,
        decoder.channels,
        decoder.channels,
        len(CLASSES),
        preset.point_range,
        decoder.proposals.bev,
        decoder.proposals.image,
    )


def with_proposals(
    head: ProposalHead,
    maps: ProposalMaps,
    learned: Tensor,
    queries: Queries | None,
    features: Features,
    lidar_to_image: Tensor | None,
    image: Tensor | None = None,
) -> Queries:
    """Return the queries with proposals instead of the first of the learned reference points.

    Args:
        head: of the maps.
        maps: of the batch.
        learned: (Q, 3), the model's own reference points in 0..1.
        queries: these, after denoising ones; None for these alone.
        features: of the batch.
        lidar_to_image: (B, V, 4, 4); None without cameras.
        image: (B, V, C, h, w) features that propose, where they are not all of the batch's.
    """
    if queries is None:
        queries = Queries(learned.expand(len(features.has_points), -1, -1), 0, None)
    denoising, matching = queries.reference_points.tensor_split((queries.denoising,), dim=1)
    has_points = torch.tensor(features.has_points, device=learned.device)
    sensed = (features.bev, features.image if image is None else image)
    placed = head.queries(maps, sensed, matching, has_points, lidar_to_image, features.image_size)
    # Denoising queries know nothing but where they are.
    content, class_logits = (F.pad(values, (0, 0, queries.denoising, 0)) for values in placed[1:3])
    return queries._replace(
        reference_points=torch.cat((denoising, placed.points), dim=1),
        content=content,
        class_logits=class_logits,
        codes=torch.cat((head.usual_codes(denoising), placed.codes), dim=1),
    )
