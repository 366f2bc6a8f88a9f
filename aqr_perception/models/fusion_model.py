"""What models that fuse cameras and LiDAR share: the two branches, and the way of a batch through the model.

Attribute names follow the published checkpoints' keys.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aqr_perception.models.cmt.head import QueryHead
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.detection_model import DetectionModel, Features
from aqr_perception.models.head_output import HeadOutput, Predictions, Queries, merge
from aqr_perception.models.image.backbone import image_backbone
from aqr_perception.models.image.fpn import CPFPN
from aqr_perception.models.points.second import SECOND, SECONDFPN
from aqr_perception.models.points.sparse_encoder import SparseEncoder
from aqr_perception.models.points.voxels import voxelize
from aqr_perception.options import AqrOptions


def _has_points(images: Tensor | None, points: Sequence[Tensor] | None) -> tuple[bool, ...]:
    if points is None:
        return (False,) * (1 if images is None else images.shape[0])
    return tuple(len(cloud) > 0 for cloud in points)


class FusionModel(DetectionModel):
    """Image and point branch; the keys of published checkpoints have no name for them together, hence a base class.

    What the frame before showed is not used: these models look at one frame alone.
    """

    pts_bbox_head: QueryHead

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        if preset.image is not None:
            backbone = image_backbone(preset.image)
            self.img_backbone = backbone
            self.img_neck = CPFPN(backbone.out_channels, preset.decoder.channels)
        if preset.points is not None:
            points = preset.points
            x, y, z = points.grid
            self.pts_middle_encoder = SparseEncoder(
                5, points.encoder_channels, grid=(z + 1, y, x), output_channels=points.encoder_output
            )
            self.pts_backbone = SECOND(
                self.pts_middle_encoder.out_channels, points.backbone_channels, points.backbone_layers
            )
            self.pts_neck = SECONDFPN(points.backbone_channels, points.neck_channels)

    def forward(
        self,
        images: Tensor | None,
        lidar_to_image: Tensor | None,
        points: Sequence[Tensor] | None,
        queries: Queries | None = None,
    ) -> Predictions:
        """Return every decoder layer's predictions.

        Args:
            images: (B, V, 3, H, W) float, BGR, normalised by the preset's mean and deviation; V may be smaller than the
                ring the model was trained with. None, or V = 0, without cameras.
            lidar_to_image: (B, V, 4, 4), model frame -> pixels of these images; None without cameras.
            points: B clouds (N, 5): x, y, z in metres, intensity 0..255, time lag in seconds. A sample whose cloud is
                empty has no LiDAR tokens. None without LiDAR.
            queries: instead of the learned queries alone (training).
        """
        return self.predict(images, lidar_to_image, points, self.aqr_options, queries=queries).predictions

    def predict(
        self,
        images: Tensor | None,
        lidar_to_image: Tensor | None,
        points: Sequence[Tensor] | None,
        aqr: AqrOptions,
        *,
        attention_weights: bool = False,
        queries: Queries | None = None,
    ) -> HeadOutput:
        """As `forward`, with the query weights; see `decode`."""
        features = self.features(images, points, self.image_features(images), self.bev_features(points))
        return self.decode(features, lidar_to_image, aqr, attention_weights=attention_weights, queries=queries)

    def image_features(self, images: Tensor | None) -> Tensor | None:
        """Return (B, V, C, h, w) features of (B, V, 3, H, W) images; None where there are none to look at."""
        if images is None or images.shape[1] == 0 or self.preset.image is None:
            return None
        features = self.img_neck(self.img_backbone(images.flatten(0, 1)))
        return features.unflatten(0, images.shape[:2])

    def bev_features(self, points: Sequence[Tensor] | None) -> Tensor | None:
        """Return (B, C, H, W) features of B clouds (N, 5), zeros for an empty cloud; None where all are empty."""
        branch = self.preset.points
        seen = [sample for sample, cloud in enumerate(points or ()) if len(cloud)]
        if branch is None or points is None or not seen:
            return None
        # Empty clouds stay out also because they would dilute the norms' statistics in training.
        clouds = [points[sample] for sample in seen]
        voxels = voxelize(
            clouds, branch.voxel_size, self.preset.point_range, branch.grid, branch.max_points, branch.max_voxels
        )
        bev = self.pts_neck(self.pts_backbone(self.pts_middle_encoder(voxels)))
        if len(seen) == len(points):
            return bev
        return bev.new_zeros(len(points), *bev.shape[1:]).index_copy(0, torch.tensor(seen, device=bev.device), bev)

    @staticmethod
    def features(
        images: Tensor | None, points: Sequence[Tensor] | None, image: Tensor | None, bev: Tensor | None
    ) -> Features:
        """Return the feature maps of these inputs, with what the head needs to know of the inputs themselves."""
        size = (0, 0) if images is None else (images.shape[-2], images.shape[-1])
        return Features(bev, image, _has_points(images, points), size)

    def _by_lidar(
        self,
        features: Features,
        lidar_to_image: Tensor | None,
        queries: Queries | None,
        head: Callable[..., HeadOutput],
    ) -> HeadOutput:
        """Return a head's output; it takes BEV and image features, projections, the image size and `queries`."""
        if features.image is None or lidar_to_image is None:
            lidar_to_image = self.pts_bbox_head.reference_points.weight.new_zeros(len(features.has_points), 0, 4, 4)
        projections = lidar_to_image

        def of(samples: list[int], bev: Tensor | None) -> HeadOutput:
            image = None if features.image is None else features.image[samples]
            asked = None if queries is None else queries.of(samples)
            return head(bev, image, projections[samples], features.image_size, queries=asked)

        return by_lidar(features, of)


def by_lidar(features: Features, head: Callable[[list[int], Tensor | None], HeadOutput]) -> HeadOutput:
    """Return one batch's output of a head that takes samples and their BEV features, None without LiDAR.

    Samples with and without points have different tokens: each kind is decoded by itself.
    """
    seen = [sample for sample, has_points in enumerate(features.has_points) if has_points]
    blind = [sample for sample, has_points in enumerate(features.has_points) if not has_points]
    if features.bev is None or not (seen and blind):
        return head(list(range(len(features.has_points))), features.bev if seen else None)
    return merge(head(seen, features.bev[seen]), head(blind, None), seen + blind)
