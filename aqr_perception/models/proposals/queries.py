"""How proposals get among a model's queries, whichever model it is."""

import torch
import torch.nn.functional as F
from torch import Tensor

from aqr_perception.frame import CLASSES
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.head_output import Queries
from aqr_perception.models.proposals.head import ProposalHead, ProposalMaps


def proposal_head(preset: Preset) -> ProposalHead | None:
    """Return the head of a preset that asks for proposals, with random weights; None for others."""
    decoder = preset.decoder
    if decoder.proposals.count == 0:
        return None
    return ProposalHead(
        decoder.channels if preset.points is None else 2 * preset.points.neck_channels,
        decoder.channels,
        decoder.channels,
        len(CLASSES),
        preset.point_range,
        decoder.proposals.bev,
        decoder.proposals.image,
    )


def put_among(
    queries: Queries,
    head: ProposalHead,
    maps: ProposalMaps,
    features: tuple[Tensor | None, Tensor | None],
    has_points: Tensor,
    lidar_to_image: Tensor | None,
    image_size: tuple[int, int],
) -> Queries:
    """Return the queries with proposals instead of the first of those that follow the denoising ones.

    Args:
        queries: of the batch.
        head: of the maps.
        maps, features, has_points, lidar_to_image, image_size: see `ProposalHead.queries`.
    """
    denoising, matching = queries.reference_points.tensor_split((queries.denoising,), dim=1)
    placed = head.queries(maps, features, matching, has_points, lidar_to_image, image_size)
    # Denoising queries know nothing but where they are.
    content, class_logits = (F.pad(values, (0, 0, queries.denoising, 0)) for values in placed[1:3])
    return queries._replace(
        reference_points=torch.cat((denoising, placed.points), dim=1),
        content=content,
        class_logits=class_logits,
        codes=torch.cat((head.usual_codes(denoising), placed.codes), dim=1),
    )
