"""PETR and PETRv2, assembled: images and calibration in, class logits and boxes out.

Attribute names follow the published checkpoints' keys.
"""

from torch import Tensor

from aqr_perception.models.camera_only import CameraOnlyModel
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.detection_model import DecodeOptions, Features
from aqr_perception.models.head_output import HeadOutput
from aqr_perception.models.image.backbone import image_backbone
from aqr_perception.models.image.fpn import CPFPN
from aqr_perception.models.petr.head import PetrHead
from aqr_perception.models.petr.memory import choose, recall, remember
from aqr_perception.models.proposals.queries import proposal_head


class PETR(CameraOnlyModel):
    """The camera-only detector that embeds every image cell by where it lies in 3D.

    Any number of cameras may take part, in any order; see `petr.position.ring_places`.

    Attributes:
        preset: its configuration; ``preset.petr.frames`` tells PETR from PETRv2.
        remembers: whether it is PETRv2.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.remembers = preset.petr.frames == 2
        backbone = image_backbone(self.image)
        self.img_backbone = backbone
        self.img_neck = CPFPN(backbone.out_channels, preset.decoder.channels)
        self.pts_bbox_head = PetrHead(preset)
        self.proposals = proposal_head(preset)

    def image_features(self, images: Tensor | None) -> Tensor | None:
        """Return (B, V, C, h, w) features, stride 16, of (B, V, 3, H, W) images; None where there are none."""
        if images is None or images.shape[1] == 0:
            return None
        return self.img_neck(self.img_backbone(images.flatten(0, 1))).unflatten(0, images.shape[:2])

    def _decode(self, features: Features, lidar_to_image: Tensor | None, asked: DecodeOptions) -> HeadOutput:
        """Return predictions and query weights for feature maps.

        There is no router. The attention mass is all on cameras; without any, the queries have no evidence: predictions
        are the anchors' priors, and all weights are 0. Of all frames that PETRv2 remembers, it looks at the one that
        lies most nearly ``preset.petr.frame_gap`` seconds back; without any the current frame stands in.
        """
        current = None
        if features.image is not None and lidar_to_image is not None:
            current = self.pts_bbox_head.capture(features.image, lidar_to_image, features.image_size)
        gap = self.preset.petr.frame_gap
        past = recall(asked.history) if self.remembers else ()
        output: HeadOutput = self.pts_bbox_head(
            current,
            choose(past, gap),
            len(features.has_points),
            features.image_size,
            asked.aqr,
            attention_weights=asked.attention_weights,
            queries=asked.queries,
            layers=asked.layers,
        )
        return output._replace(state=remember(past, current, gap)) if self.remembers else output
