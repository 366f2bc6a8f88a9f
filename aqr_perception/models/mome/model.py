"""MoME, the mixture of multi-modal experts (arXiv:2503.19776): CMT with another transformer, whose weights load as
published."""

from functools import partial

from torch import Tensor

from aqr_perception.models.config.presets import Preset
from aqr_perception.models.detection_model import DecodeOptions, Features
from aqr_perception.models.fusion_model import FusionModel
from aqr_perception.models.head_output import HeadOutput
from aqr_perception.models.mome.head import MoMEHead


class MoME(FusionModel):
    """Routes each query to an expert that looks at both sensors, at the LiDAR alone or at the cameras alone.

    The router's probabilities are the query weights: P(fused) + P(LiDAR) of the LiDAR, P(fused) + P(camera) of the
    cameras, and of each camera that sees the query. They act through the choice of the expert: the modes, strength and
    windows of `AqrOptions` have no effect, those of its options that draw the weight maps do.

    Attributes:
        router_prefixes: of the keys of the router's parameters, which ``train aqr`` trains.
    """

    pts_bbox_head: MoMEHead
    router_prefixes = ("pts_bbox_head.transformer.encoder.", "pts_bbox_head.transformer.selected_cls.")

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.router_trained = True
        self.pts_bbox_head = MoMEHead(preset)

    def _decode(self, features: Features, lidar_to_image: Tensor | None, asked: DecodeOptions) -> HeadOutput:
        """Return predictions and query weights, the router's always."""
        head = partial(
            self.pts_bbox_head, aqr=asked.aqr, attention_weights=asked.attention_weights, layers=asked.layers
        )
        return self._by_lidar(features, lidar_to_image, asked.queries, head)
