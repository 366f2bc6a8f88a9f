# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the other sensor shows at a proposal's place, as a part of the query's content.

Attention alone finds it hard to learn which of thousands of tokens lie at a query's place: a detector without this part
gave 96 % of its attention to the LiDAR. A LiDAR's proposal therefore gets the features and class scores of each camera
at its projection, and a camera's proposal those of the LiDAR at its place, as in TransFusion's and DETR3D's sampling
(arXiv:2203.11496, arXiv:2110.06922).
"""

import torch
from torch import Tensor, nn

from aqr_perception.models.config.presets import Preset
from aqr_perception.models.model_io import Features, OtherEvidence, ProposalMaps, Queries
from aqr_perception.models.proposals.places import bev_values, picture_cells, picture_values, score_evidence
from aqr_perception.models.proposals.proposal_head import BOX_CHANNELS, CLASS_BIAS, UPSAMPLING, ProposalHead


class OtherSensor(nn.Module):
    """Linear maps of the other sensor's features and class scores to content; an untrained one adds nothing.

    Attributes:
        beside_lidar: (1,), added to the class logits of queries at no LiDAR proposal where the LiDAR sees; see
            `gated_proposals.with_scores_beside_lidar`.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        channels, classes = preset.decoder.channels, len(preset.classes)
        assert preset.points is not None and preset.image is not None
        self.cameras = nn.Linear(channels + classes, channels, bias=False)
        self.lidar = nn.Linear(2 * preset.points.neck_channels + classes, channels, bias=False)
        for layer in (self.cameras, self.lidar):
            nn.init.zeros_(layer.weight)
        self.beside_lidar = nn.Parameter(torch.zeros(1))

    def forward(self, queries: Queries, head: ProposalHead, maps: ProposalMaps, features: Features) -> Queries:
        """Return the queries with the evidence of the other sensor; unchanged without proposals of both.

        Args:
            queries: the result of `place_proposals` for the other arguments.
            head: the proposal head.
            maps: the heat maps.
            features: the features of the maps.
        """
        if maps.bev is None or maps.image is None or features.bev is None or features.image is None:
            return queries
        if not features.image.shape[1] or queries.at_proposals is None:
            return queries
        points = head.metres(queries.reference_points.detach()).float()
        by_lidar, by_camera = (points[:, found] for found in queries.at_proposals)
        has_points = torch.tensor(features.has_points, device=points.device)[:, None, None]

        image, image_scores = features.image.float(), maps.image[:, :, :-BOX_CHANNELS].detach()
        bev, bev_scores = features.bev.float(), maps.bev[:, :-BOX_CHANNELS].detach()
        if features.removed_image is not None:
            image, image_scores = _without(image, image_scores, features.removed_image[:, :, None])
        if features.removed_bev is not None:
            bev, bev_scores = _without(bev, bev_scores, features.removed_bev[:, None])
        with torch.autocast(points.device.type, enabled=False):
            cells = picture_cells(by_lidar[:, :, None], features, image.shape[-2:])[:, :, :, 0]
            shown = picture_values(image, cells)
            scores = score_evidence(picture_values(image_scores, UPSAMPLING * cells, CLASS_BIAS))
            seen = bev_values(bev, by_camera, head.bev_range)
            found = score_evidence(bev_values(bev_scores, by_camera, head.bev_range, CLASS_BIAS))
        dtype = self.cameras.weight.dtype
        cameras = self.cameras(torch.cat((shown, scores), dim=-1).to(dtype)) * has_points[..., None]
        lidar = self.lidar(torch.cat((seen, found), dim=-1).to(dtype)) * has_points
        return queries._replace(other=OtherEvidence(lidar, cameras))


def _without(features: Tensor, logits: Tensor, removed: Tensor) -> tuple[Tensor, Tensor]:
    """Return features and class logits as those of empty cells where feature cells are removed."""
    fine = removed.repeat_interleave(UPSAMPLING, -2).repeat_interleave(UPSAMPLING, -1)
    return features.masked_fill(removed, 0.0), logits.masked_fill(fine, CLASS_BIAS)
