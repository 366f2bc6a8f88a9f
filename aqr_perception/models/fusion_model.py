# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Camera and LiDAR branches of the fusion models, and batches in which some samples lack LiDAR."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from aqr_perception.models.aqr.gate import Gate
from aqr_perception.models.boxes.task_heads import class_count
from aqr_perception.models.config.presets import PointBranch, Preset
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.image.backbone import image_backbone
from aqr_perception.models.image.backbone_cache import BackboneCache
from aqr_perception.models.image.fpn import CPFPN
from aqr_perception.models.model_io import Features, ModelOutput, Predictions, QueryWeights
from aqr_perception.models.points.intensities import matched_intensities
from aqr_perception.models.points.pillars import PillarEncoder
from aqr_perception.models.points.second import SECOND, SECONDFPN
from aqr_perception.models.points.sparse_encoder import SparseEncoder
from aqr_perception.models.points.voxels import voxelize


class FusionModel(DetectionModel):
    """Base class of models with an image branch, a point branch or both; they ignore history.

    The branches are attributes of a base class because the published checkpoints' keys have them at the top level.

    Attributes:
        backbone_cache: cache of the feature maps of a frozen image backbone, for training; None for no cache.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.backbone_cache: BackboneCache | None = None
        if preset.image is not None:
            backbone = image_backbone(preset.image)
            self.img_backbone = backbone
            self.img_neck = CPFPN(backbone.out_channels, preset.decoder.channels)
        if preset.points is not None:
            points = preset.points
            self.pts_middle_encoder = _point_encoder(points, preset.point_range)
            self.pts_backbone = SECOND(
                self.pts_middle_encoder.out_channels, points.backbone_channels, points.backbone_layers
            )
            self.pts_neck = SECONDFPN(points.backbone_channels, points.neck_channels)

    def class_count(self, weights: Mapping[str, Tensor]) -> int | None:
        """Return the number of classes of this architecture's weights; see `DetectionModel.class_count`."""
        return class_count(weights, "pts_bbox_head.task_heads.")

    def image_features(self, images: Tensor | None) -> Tensor | None:
        """Return (B, V, C, h, w) features of (B, V, 3, H, W) images; None without images."""
        if images is None or images.shape[1] == 0 or self.preset.image is None:
            return None
        pictures, cache = images.flatten(0, 1), self.backbone_cache
        maps = self.img_backbone(pictures) if cache is None else cache(self.img_backbone, pictures)
        features: Tensor = self.img_neck(maps)
        return features.view(*images.shape[:2], *features.shape[1:])

    def bev_features(self, points: Sequence[Tensor] | None) -> Tensor | None:
        """Return (B, C, H, W) features of B point clouds (N, 5); zeros for an empty one; None if all are empty."""
        branch = self.preset.points
        with_points = [sample for sample, cloud in enumerate(points or ()) if len(cloud)]
        if branch is None or points is None or not with_points:
            return None
        # Empty point clouds are left out, because they would dilute the statistics of the batch norms in training.
        clouds = [matched_intensities(points[sample], branch.intensity_quantiles) for sample in with_points]
        if branch.encoder == "pillars":
            encoded = self.pts_middle_encoder(clouds)
        else:
            voxels = voxelize(
                clouds, branch.voxel_size, self.preset.point_range, branch.grid, branch.max_points, branch.max_voxels
            )
            encoded = self.pts_middle_encoder(voxels)
        bev: Tensor = self.pts_neck(self.pts_backbone(encoded))
        if len(with_points) == len(points):
            return bev
        index = torch.tensor(with_points, device=bev.device)
        return bev.new_zeros(len(points), *bev.shape[1:]).index_copy(0, index, bev)


def _point_encoder(
    points: PointBranch, point_range: tuple[float, float, float, float, float, float]
) -> SparseEncoder | PillarEncoder:
    x, y, z = points.grid
    if points.encoder == "pillars":
        return PillarEncoder(
            points.pillars.channels,
            points.pillars.blocks,
            pillar_size=points.voxel_size[:2],
            point_range=point_range,
            grid=(x, y),
        )
    return SparseEncoder(5, points.encoder_channels, grid=(z + 1, y, x), output_channels=points.encoder_output)


def lidar_groups(features: Features) -> list[list[int]]:
    """Return the samples with LiDAR and those without; their tokens differ, so each group is decoded separately."""
    groups: tuple[list[int], list[int]] = ([], [])
    for sample, has_points in enumerate(features.has_points):
        groups[not has_points].append(sample)
    return [group for group in groups if group]


def merge_groups(outputs: Sequence[ModelOutput], groups: Sequence[Sequence[int]]) -> ModelOutput:
    """Return a batch's output, merged from its `lidar_groups`; missing LiDAR weight maps become zeros."""
    if len(outputs) == 1:
        return outputs[0]
    with_lidar, without = outputs
    samples = [sample for group in groups for sample in group]
    order = torch.tensor(samples, device=with_lidar.predictions.boxes.device).argsort()

    def merged(first: QueryWeights | None, second: QueryWeights | None) -> QueryWeights | None:
        if first is None or second is None:
            return None
        no_map = first.bev_map.new_zeros(len(second.bev_map), *first.bev_map.shape[1:])
        pairs = zip(first, second._replace(bev_map=no_map), strict=True)
        return QueryWeights(*(torch.cat(pair)[order] for pair in pairs))

    gate = None
    if with_lidar.gate is not None and without.gate is not None:
        gate = Gate(*(torch.cat(pair)[order] for pair in zip(with_lidar.gate, without.gate, strict=True)))
    pairs = zip(with_lidar.predictions, without.predictions, strict=True)
    return ModelOutput(
        Predictions(*(torch.cat(pair, dim=1)[:, order] for pair in pairs)),
        merged(with_lidar.router, without.router),
        merged(with_lidar.attention, without.attention),
        gate=gate,
    )
