"""PETR and PETRv2, assembled: images and calibration in, class logits and boxes out.

Attribute names follow the published checkpoints' keys.
"""

from torch import Tensor

from aqr_perception.models.camera_model import CameraModel
from aqr_perception.models.detection_model import Features, History
from aqr_perception.models.fusion_head import HeadOutput, Queries
from aqr_perception.models.image.backbone import image_backbone
from aqr_perception.models.image.fpn import CPFPN
from aqr_perception.models.petr.head import PetrHead
from aqr_perception.models.petr.memory import choose, recall, remember
from aqr_perception.models.presets import Preset
from aqr_perception.models.proposing import proposal_head
from aqr_perception.options import AqrOptions


class PETR(CameraModel):
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

    def decode(
        self,
        features: Features,
        lidar_to_image: Tensor | None,
        aqr: AqrOptions,
        *,
        route: bool = False,
        attention_weights: bool = False,
        queries: Queries | None = None,
        layers: slice = slice(None),
        history: History | None = None,
    ) -> HeadOutput:
        """Return predictions and query weights for feature maps.

        Without any camera the queries have no evidence: predictions are the anchors' priors, and all weights are 0.

        Args:
            features: of the cameras that take part.
            lidar_to_image: (B, V, 4, 4); None without cameras.
            aqr: how weight maps are drawn; its modes do not apply.
            route: not used: there is no router.
            attention_weights: whether to return weights from the attention mass, which is all on cameras.
            queries: instead of the learned queries alone (training).
            layers: the decoder layers whose predictions are computed.
            history: the frame before, for PETRv2. Of all frames that it remembers, it looks at the one that lies most
                nearly ``preset.petr.frame_gap`` seconds back. Without any the current frame stands in.
        """
        current = None
        if features.image is not None and lidar_to_image is not None:
            current = self.pts_bbox_head.capture(features.image, lidar_to_image, features.image_size)
        learned = self.pts_bbox_head.reference_points.weight
        queries, maps = self.with_proposals(queries, learned, features, lidar_to_image)
        gap = self.preset.petr.frame_gap
        past = recall(history) if self.remembers else ()
        output = self.pts_bbox_head(
            current,
            choose(past, gap),
            len(features.has_points),
            features.image_size,
            aqr,
            attention_weights=attention_weights,
            queries=queries,
            layers=layers,
        )
        output = output._replace(queries=queries, proposals=maps)
        return output._replace(state=remember(past, current, gap)) if self.remembers else output
