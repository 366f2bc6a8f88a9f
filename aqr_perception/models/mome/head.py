# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parts of MoME under the published key `pts_bbox_head`: CMT's parts with another transformer (arXiv:2503.19776).

Attribute names follow the published checkpoints' keys.
"""

from torch import Tensor

from aqr_perception.models.aqr.published_windows import Windows, published_cells, router_windows
from aqr_perception.models.cmt.head import CmtHead, embedded_points
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.model_io import Features, Queries
from aqr_perception.models.mome.experts import MixtureOfExperts
from aqr_perception.models.tokens import TokenLayout

_BEV_WINDOW, _IMAGE_WINDOW = 5, 15
"""Edge lengths in cells of the router's windows."""


class MoMEHead(CmtHead):
    """CMT's parts with a mixture of experts as transformer and position embeddings for each sensor."""

    transformer: MixtureOfExperts

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.transformer = MixtureOfExperts(
            self.transformer.decoder, preset.decoder.channels, preset.decoder.feedforward
        )

    def sensor_positions(self, queries: Queries, features: Features) -> tuple[Tensor, Tensor]:
        """Return the BEV part and the image part of the queries' position embeddings, (B, Q, C) each."""
        inside = embedded_points(queries)
        bev: Tensor = self.bev_embedding(inside)
        points = inside * self._extent + self._lower
        image = self.rv_embedding.queries(points, features.lidar_to_image, features.image_size)
        return bev + self.transformer.bev_type_embed, image + self.transformer.rv_type_embed

    def windows(self, queries: Queries, features: Features, layout: TokenLayout) -> Windows:
        """Return the tokens around each query, which the router attends to."""
        points = self.points(queries)
        cells = published_cells(points, self.point_range, features.lidar_to_image, features.image_size, layout)
        return router_windows(cells, layout, _BEV_WINDOW, _IMAGE_WINDOW)
