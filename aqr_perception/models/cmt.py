"""CMT, the cross-modal transformer (arXiv:2301.01283), with AQR: cameras and LiDAR in, class logits and boxes out.

Attribute names follow the published checkpoints' keys.
"""

from functools import partial

from torch import Tensor

from aqr_perception.models.aqr.router import Router
from aqr_perception.models.detection_model import Features, History
from aqr_perception.models.fusion_head import FusionHead, HeadOutput, Queries
from aqr_perception.models.fusion_model import FusionModel
from aqr_perception.models.presets import Preset
from aqr_perception.models.proposing import proposal_head
from aqr_perception.options import AqrOptions


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
        """Return predictions and query weights; see `DetectionModel.decode`. AQR is off without a trained router."""
        aqr = aqr.resolved(self.preset.aqr)
        router = self.aqr if self.router_trained and (route or aqr.modulates or aqr.biases) else None
        learned = self.pts_bbox_head.reference_points.weight
        queries, maps = self.with_proposals(queries, learned, features, lidar_to_image)
        head = partial(self.pts_bbox_head, router=router, aqr=aqr, attention_weights=attention_weights, layers=layers)
        output = self._by_lidar(features, lidar_to_image, queries, head)
        return output._replace(queries=queries, proposals=maps)
