# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""PETR (arXiv:2203.05625) and PETRv2 (arXiv:2206.01256): images and calibration in, class logits and boxes out.

Attribute names follow the published checkpoints' keys.
"""

from collections.abc import Mapping

from torch import Tensor

from aqr_perception.models.config.presets import Preset
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.image.backbone import image_backbone
from aqr_perception.models.image.fpn import CPFPN
from aqr_perception.models.model_io import DecodeOptions, Features, History, ModelOutput, Queries
from aqr_perception.models.petr.head import PetrHead
from aqr_perception.models.petr.memory import nearest_frame, past_frames, remembered_frames
from aqr_perception.models.petr.petr_options import PetrOptions
from aqr_perception.models.petr.prediction_branches import class_count
from aqr_perception.models.proposals.queries import place_proposals, proposal_head


class PETR(DetectionModel):
    """Camera-only detector that embeds every image cell by its position in 3D.

    Any number of cameras may be used, in any order; see `petr.position.ring_places`.

    Attributes:
        options: ``options.frames`` distinguishes PETR from PETRv2.
        remembers: true for PETRv2.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        assert preset.image is not None  # `load_preset` requires it for this architecture
        self.options = preset.architecture_options(PetrOptions)
        self.remembers = self.options.frames == 2
        self.box_convention, self.box_convention_entry = self.options.box_convention, "petr.box_convention"
        backbone = image_backbone(preset.image)
        self.img_backbone = backbone
        self.img_neck = CPFPN(backbone.out_channels, preset.decoder.channels)
        self.pts_bbox_head = PetrHead(preset)
        self.proposals = proposal_head(preset)

    def class_count(self, weights: Mapping[str, Tensor]) -> int | None:
        """Return the number of classes of this architecture's weights; see `DetectionModel.class_count`."""
        return class_count(weights, "pts_bbox_head.cls_branches.")

    def image_features(self, images: Tensor | None) -> Tensor | None:
        """Return (B, V, C, h, w) features of (B, V, 3, H, W) images; None without images."""
        if images is None or images.shape[1] == 0:
            return None
        features: Tensor = self.img_neck(self.img_backbone(images.flatten(0, 1)))
        return features.view(*images.shape[:2], *features.shape[1:])

    def decode(
        self,
        features: Features,
        options: DecodeOptions,
        queries: Queries | None = None,
        history: History | None = None,
    ) -> ModelOutput:
        """Return predictions and query weights of one batch; there is no router.

        The attention mass is entirely on the cameras. Without cameras the predictions are the learned queries' priors,
        and all weights are 0. PETRv2 also attends to the remembered frame with an age nearest to
        ``options.frame_gap`` seconds; without history, the current frame replaces it.
        """
        head, gap = self.pts_bbox_head, self.options.frame_gap

        # Queries start at proposals or learned reference points.
        proposals = self.propose(features)
        queries = queries or head.learned_queries(features.batch_size)
        queries = place_proposals(queries, self.proposals, proposals, features)

        # Tokens of the current and a past frame.
        current = head.camera_frame(features)
        past = past_frames(history) if self.remembers else ()
        frames = head.frames(current, nearest_frame(past, gap))
        memory = head.memory(frames, features)

        # Decoding and prediction.
        decoded = head.transformer.decoder(
            head.query_embedding.embed(queries.reference_points),
            memory,
            None,
            queries.mask,
            options.attention_weights,
            content=queries.content,
        )
        predictions = head.predict(decoded.queries, queries, frames, options.layers)
        attention = head.attention_weights(decoded.mass, frames, queries, features.image_size, options.aqr)
        state = remembered_frames(past, current, gap) if self.remembers else None
        return ModelOutput(predictions, None, attention, queries, proposals, state)
