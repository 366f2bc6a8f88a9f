"""BEVFormer, assembled: images, calibration and the frame before in, class logits and boxes out.

Attribute names follow the published checkpoints' keys.
"""

import torch
from torch import Tensor

from aqr_perception.models.bevformer.deformable_attention import Shapes
from aqr_perception.models.bevformer.ego_motion import ego_motion
from aqr_perception.models.bevformer.head import BevFormerHead, Cameras, Survey
from aqr_perception.models.camera_only import CameraOnlyModel
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.detection_model import DecodeOptions, Features, History
from aqr_perception.models.head_output import HeadOutput
from aqr_perception.models.image.backbone import image_backbone
from aqr_perception.models.image.fpn import FPN
from aqr_perception.models.proposals.queries import proposal_head
from aqr_perception.models.weights.branches import CAMERA_BRANCH

_STAGES = {1: (4,), 2: (3, 4), 4: (2, 3, 4)}
"""Of the backbone, by the number of levels."""
_COARSEST = 32
"""Stride of the backbone's last stage."""
_PROPOSING = 16
"""Stride of the level that proposals come from, if there is one."""


class BEVFormer(CameraOnlyModel):
    """The camera-only detector that remembers a bird's-eye view.

    Any number of cameras may take part, in any order: each has the embedding of its place in the ring.
    """

    branches = CAMERA_BRANCH
    bev_of_cameras = True
    remembers = True
    takes_queries = False

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        levels = preset.bevformer.levels
        stages = _STAGES[levels]
        backbone = image_backbone(self.image, stages)
        self._maps = len(stages)
        self.img_backbone = backbone
        self.img_neck = FPN(backbone.out_channels[-self._maps :], levels, preset.decoder.channels)
        self.pts_bbox_head = BevFormerHead(preset)
        self.proposals = proposal_head(preset)

    def image_features(self, images: Tensor | None) -> Tensor | None:
        """Return (B, V, cells, C) features of (B, V, 3, H, W) images; None where there are none.

        The cells of all levels in a row, as Deformable DETR joins them: the finest level first, each row by row.
        """
        if images is None or images.shape[1] == 0:
            return None
        if self.preset.bevformer.rgb:
            images = images.flip(2)
        maps = self.img_neck(self.img_backbone(images.flatten(0, 1))[-self._maps :])
        return torch.cat([level.flatten(2) for level in maps], dim=2).transpose(1, 2).unflatten(0, images.shape[:2])

    def _decode(self, features: Features, lidar_to_image: Tensor | None, asked: DecodeOptions) -> HeadOutput:
        """Return predictions, query weights and the bird's-eye view, which the next frame wants as its history.

        Without any camera the bird's-eye view is what the history knows, moved with the vehicle, and fades from frame
        to frame; without history, too, predictions are the queries' priors. All weights are then 0.

        There is no router. The attention is all on cameras; what the history adds is nobody's. The history's state is
        never written to; None, or a state of None, starts a new drive.

        Raises:
            ValueError: there are denoising queries.
        """
        if asked.queries is not None and asked.queries.denoising:
            raise ValueError(
                f"BEVFormer was given {asked.queries.denoising} denoising queries, but has none: train it without "
                "denoising"
            )
        assert features.bev is not None and isinstance(features.survey, Survey)  # `_surveyed` saw to it
        output: HeadOutput = self.pts_bbox_head(
            features.bev.flatten(2).transpose(1, 2),
            features.survey,
            asked.aqr,
            attention_weights=asked.attention_weights,
            queries=asked.queries,
            layers=asked.layers,
        )
        return output

    def _surveyed(self, features: Features, lidar_to_image: Tensor | None, history: History | None) -> Features:
        """Return the features with the bird's-eye view.

        Raises:
            TypeError, ValueError: the history is another model's or of another batch size.
        """
        motion = ego_motion(history, len(features.has_points), self.preset.bevformer.forward)
        past = None if history is None else _bev_of(history)
        bev, survey = self.pts_bbox_head.survey(self._cameras(features, lidar_to_image), motion, past)
        return features._replace(bev=bev.transpose(1, 2).unflatten(2, self.pts_bbox_head.grid), survey=survey)

    def _learned_references(self) -> Tensor:
        return self.pts_bbox_head.learned_references()

    def _proposing(self, features: Features) -> tuple[Tensor | None, Tensor | None]:
        """Return the bird's-eye view, where there is one yet, and the cameras' features of stride 16, or the coarsest.

        BEVFormer v2 (arXiv:2211.10439) lets its image branch learn and propose likewise.
        """
        if features.image is None:
            return features.bev, None
        shapes = self._shapes(features.image_size)
        strides = self._strides()
        level = strides.index(_PROPOSING) if _PROPOSING in strides else 0
        first = sum(rows * columns for rows, columns in shapes[:level])
        rows, columns = shapes[level]
        cells = features.image[:, :, first : first + rows * columns]
        return features.bev, cells.transpose(2, 3).unflatten(3, (rows, columns))

    def _cameras(self, features: Features, lidar_to_image: Tensor | None) -> Cameras:
        batch, channels = len(features.has_points), self.preset.decoder.channels
        if features.image is None or lidar_to_image is None:
            weight = self.pts_bbox_head.bev_embedding.weight
            return Cameras(weight.new_zeros(batch, 0, 1, channels), [(1, 1)], weight.new_zeros(batch, 0, 4, 4), (0, 0))
        return Cameras(features.image, self._shapes(features.image_size), lidar_to_image, features.image_size)

    def _shapes(self, image_size: tuple[int, int]) -> Shapes:
        """Return rows and columns of every level: every stage and further convolution halves, rounding up."""
        return [(-(-image_size[0] // stride), -(-image_size[1] // stride)) for stride in self._strides()]

    def _strides(self) -> list[int]:
        finest = _COARSEST >> (self._maps - 1)
        return [finest << level for level in range(self.preset.bevformer.levels)]


def _bev_of(history: History) -> Tensor | None:
    if history.state is not None and not isinstance(history.state, Tensor):
        raise TypeError(f"history.state is a {type(history.state).__name__}, but must be what BEVFormer gave")
    return history.state
