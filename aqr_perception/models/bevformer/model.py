# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""BEVFormer (arXiv:2203.17270): images, calibration and the previous frame in, class logits and boxes out.

Attribute names follow the published checkpoints' keys.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from aqr_perception.models.bevformer.bevformer_options import BevFormerOptions
from aqr_perception.models.bevformer.deformable_attention import Shapes
from aqr_perception.models.bevformer.ego_motion import ego_motion
from aqr_perception.models.bevformer.head import BevFormerHead, BirdsEyeView, Cameras
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.image.backbone import image_backbone
from aqr_perception.models.image.fpn import FPN
from aqr_perception.models.model_io import DecodeOptions, Features, History, ModelOutput, ProposalMaps, Queries
from aqr_perception.models.petr.prediction_branches import class_count
from aqr_perception.models.proposals.queries import place_proposals, proposal_head, propose
from aqr_perception.models.weights.branches import CAMERA_BRANCH

_STAGES = {1: (4,), 2: (3, 4), 4: (2, 3, 4)}
"""The backbone's stages by the number of feature levels."""
_COARSEST = 32
"""Stride of the backbone's last stage."""
_PROPOSAL_STRIDE = 16
"""Stride of the level from which image proposals come, if there is one."""


class BEVFormer(DetectionModel):
    """Camera-only detector that remembers its BEV features.

    Any number of cameras may be used, in any order: each has the embedding of its position in the camera ring.
    """

    branches = CAMERA_BRANCH
    bev_of_cameras = True
    remembers = True
    takes_queries = False
    weights_at_boxes = True

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        assert preset.image is not None  # `load_preset` requires it for this architecture
        self.options = preset.architecture_options(BevFormerOptions)
        self.box_convention, self.box_convention_entry = self.options.box_convention, "bevformer.box_convention"
        stages = _STAGES[self.options.levels]
        backbone = image_backbone(preset.image, stages)
        self._maps = len(stages)
        self.img_backbone = backbone
        self.img_neck = FPN(backbone.out_channels[-self._maps :], self.options.levels, preset.decoder.channels)
        self.pts_bbox_head = BevFormerHead(preset)
        self.proposals = proposal_head(preset)

    def class_count(self, weights: Mapping[str, Tensor]) -> int | None:
        """Return the number of classes of this architecture's weights; see `DetectionModel.class_count`."""
        return class_count(weights, "pts_bbox_head.cls_branches.")

    def image_features(self, images: Tensor | None) -> Tensor | None:
        """Return (B, V, cells, C) features of (B, V, 3, H, W) images; None without images.

        The cells of all levels are concatenated as in Deformable DETR: the finest level first, each row by row.
        """
        if images is None or images.shape[1] == 0:
            return None
        if self.options.rgb:
            images = images.flip(2)
        maps = self.img_neck(self.img_backbone(images.flatten(0, 1))[-self._maps :])
        cells = torch.cat([level.flatten(2) for level in maps], dim=2).transpose(1, 2)
        return cells.view(*images.shape[:2], *cells.shape[1:])

    def decode(
        self,
        features: Features,
        options: DecodeOptions,
        queries: Queries | None = None,
        history: History | None = None,
    ) -> ModelOutput:
        """Return predictions, query weights and the BEV features, which are the next frame's history.

        Without cameras, the BEV features are the history moved with the vehicle, and fade from frame to frame. Without
        cameras and history, predictions are the queries' priors. All weights are then 0.

        BEVFormer has no router. Attention weights cover the cameras only; attention to cells that only the history
        covers has no weight. The history's state is not modified; None, or a state of None, starts a new drive.

        Raises:
            TypeError: the history belongs to another model.
            ValueError: the history belongs to another batch size, or there are denoising queries.
        """
        if queries is not None and queries.denoising:
            raise ValueError(
                f"BEVFormer was given {queries.denoising} denoising queries, but has none: train it without denoising"
            )
        head = self.pts_bbox_head

        # BEV features.
        cameras = self._cameras(features)
        bev = self.encode_bev(cameras, history)

        # Queries start at proposals or learned reference points.
        proposal_features = self._proposal_features(features, bev)
        proposals = propose(self.proposals, proposal_features)
        queries = queries or head.learned_queries(features.batch_size)
        queries = place_proposals(queries, self.proposals, proposals, proposal_features)

        # Decoding and prediction.
        decoded = head.decode(bev, queries)
        predictions = head.predict(decoded, queries, options.layers)
        attention = None
        if options.attention_weights:
            attention = head.attention_weights(decoded, predictions, bev, cameras, options.aqr)
        return ModelOutput(predictions, None, attention, queries, proposals, state=bev.cells.detach())

    def encode_bev(self, cameras: Cameras, history: History | None) -> BirdsEyeView:
        """Return BEV features from the cameras and from the previous frame, moved with the vehicle."""
        motion = ego_motion(history, len(cameras.features), self.options.forward)
        state = None if history is None else history.state
        if state is not None and not isinstance(state, Tensor):
            raise TypeError(f"history.state is a {type(state).__name__}, but must be the state of a BEVFormer")
        return self.pts_bbox_head.encode(cameras, motion, state)

    def branch_proposals(self, features: Features) -> ProposalMaps | None:
        """Return None: proposals need the BEV features, which only `decode` has."""
        return None

    def propose(self, features: Features) -> ProposalMaps | None:
        """Return the heat maps of the image proposals only; `decode` also proposes from the BEV."""
        return propose(self.proposals, self._proposal_features(features, None))

    def _proposal_features(self, features: Features, bev: BirdsEyeView | None) -> Features:
        """Return BEV features and the image level of stride 16, or the coarsest one, as maps for proposals.

        BEVFormer v2 (arXiv:2211.10439) also proposes from its image branch.
        """
        bev_map = None if bev is None else bev.cells.transpose(1, 2).reshape(len(bev.cells), -1, *bev.grid)
        image = features.image
        if image is not None:
            shapes, strides = self._shapes(features.image_size), self._strides()
            level = strides.index(_PROPOSAL_STRIDE) if _PROPOSAL_STRIDE in strides else 0
            first = sum(rows * columns for rows, columns in shapes[:level])
            rows, columns = shapes[level]
            cells = image[:, :, first : first + rows * columns]
            image = cells.transpose(2, 3).reshape(*image.shape[:2], -1, rows, columns)
        return features._replace(bev=bev_map, image=image, has_points=(bev is not None,) * features.batch_size)

    def _cameras(self, features: Features) -> Cameras:
        if features.image is not None:
            shapes = self._shapes(features.image_size)
            return Cameras(features.image, shapes, features.lidar_to_image, features.image_size)
        channels = self.preset.decoder.channels
        no_image = self.pts_bbox_head.bev_embedding.weight.new_zeros(features.batch_size, 0, 1, channels)
        return Cameras(no_image, [(1, 1)], features.lidar_to_image, features.image_size)

    def _shapes(self, image_size: tuple[int, int]) -> Shapes:
        """Return rows and columns of every level; every stage and further convolution halves both, rounding up."""
        return [(-(-image_size[0] // stride), -(-image_size[1] // stride)) for stride in self._strides()]

    def _strides(self) -> list[int]:
        finest = _COARSEST >> (self._maps - 1)
        return [finest << level for level in range(self.options.levels)]
