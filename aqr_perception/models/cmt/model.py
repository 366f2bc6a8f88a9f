"""CMT, the cross-modal transformer (arXiv:2301.01283), with AQR: cameras and LiDAR in, class logits and boxes out.

Attribute names follow the published checkpoints' keys.
"""

from functools import partial

from torch import Tensor

from aqr_perception.models.aqr.router import Router
from aqr_perception.models.cmt.head import FusionHead
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.detection_model import DecodeOptions, Features
from aqr_perception.models.fusion_model import FusionModel
from aqr_perception.models.head_output import HeadOutput
from aqr_perception.models.proposals.queries import proposal_head


class CMT(FusionModel):
    """The fusion detector; a preset without an image or a point branch makes it a LiDAR-only or camera-only one.

    Attributes:
        router_trained: whether the router may be used; false for presets of published models, and for any model into
            which a checkpoint without a router was loaded.
    """

    pts_bbox_head: FusionHead

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.router_trained = preset.aqr.mode != "off"
        self.pts_bbox_head = FusionHead(preset)
        self.aqr = Router(preset.decoder.channels)
        self.proposals = proposal_head(preset)

    def _decode(self, features: Features, lidar_to_image: Tensor | None, asked: DecodeOptions) -> HeadOutput:
        """Return predictions and query weights; AQR is off without a trained router."""
        aqr = asked.aqr.resolved(self.preset.aqr)
        router = self.aqr if self.router_trained and (asked.route or aqr.modulates or aqr.biases) else None
        head = partial(
            self.pts_bbox_head,
            router=router,
            aqr=aqr,
            attention_weights=asked.attention_weights,
            layers=asked.layers,
        )
        return self._by_lidar(features, lidar_to_image, asked.queries, head)
