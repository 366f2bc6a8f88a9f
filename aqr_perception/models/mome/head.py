"""From feature maps to predictions with MoME's experts (arXiv:2503.19776).

Attribute names follow the published checkpoints' keys.
"""

import torch
from torch import Tensor

from aqr_perception.models.aqr.projection import project
from aqr_perception.models.cmt.head import QueryHead
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.head_output import HeadOutput, Queries
from aqr_perception.models.mome.experts import Expert, MixtureOfExperts
from aqr_perception.models.mome.windows import router_windows
from aqr_perception.models.transformer.decoder import Memory
from aqr_perception.options import AqrOptions

_REFERENCE_EPS = 1e-5


class MoMEHead(QueryHead):
    """Each query gathers evidence from the tokens of the expert to which it is routed; see `forward`."""

    transformer: MixtureOfExperts

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.transformer = MixtureOfExperts(
            self.transformer.decoder, preset.decoder.channels, preset.decoder.feedforward
        )

    def forward(
        self,
        bev: Tensor | None,
        image: Tensor | None,
        lidar_to_image: Tensor,
        image_size: tuple[int, int],
        aqr: AqrOptions,
        *,
        attention_weights: bool = False,
        queries: Queries | None = None,
        layers: slice = slice(None),
    ) -> HeadOutput:
        """Detect objects in one batch of feature maps; the arguments are `FusionHead.forward`'s.

        The choice of an expert is hard, in training too, and no gradient passes through it. The router learns through
        the probabilities behind its weights (`HeadOutput.router`), to which `training.router_loss` is applied.
        """
        batch = lidar_to_image.shape[0]
        if queries is None:
            queries = Queries(self.reference_points.weight.expand(batch, -1, -1), 0, None)
        points = queries.reference_points * self._extent + self._lower
        features, positions, layout = self._tokens(bev, image, lidar_to_image, image_size)
        memory = Memory(features + positions, features, layout)
        bev_position, image_position = self._positions(queries.reference_points, lidar_to_image, image_size)

        windows = router_windows(points, self.point_range, lidar_to_image, image_size, layout)
        shares = self.transformer.probabilities(bev_position + image_position, memory, windows)
        decoded = self.transformer.decode(
            shares.argmax(-1),
            (bev_position + image_position, bev_position, image_position),
            memory,
            lidar_to_image,
            queries.mask,
            attention_weights,
        )

        cells = project(points, self.point_range, lidar_to_image, image_size, layout)
        lidar = shares[..., Expert.FUSED] + shares[..., Expert.LIDAR]
        camera = shares[..., Expert.FUSED] + shares[..., Expert.CAMERA]
        # Rounding may make the sum of two probabilities a little more than 1.
        modality = torch.stack((lidar, camera), dim=-1).clamp(max=1.0)
        cameras = torch.where(cells.image_visible, modality[..., 1:], 0.0)
        routed = self._render(modality, cameras, cells, layout, aqr, skip=queries.denoising)
        attended = None
        if decoded.mass is not None:
            seen = torch.stack((decoded.mass[..., 0], decoded.mass[..., 1:].sum(-1)), dim=-1)
            attended = self._render(seen, decoded.mass[..., 1:], cells, layout, aqr, skip=queries.denoising)
        return HeadOutput(self._predict(decoded.queries, queries, layers), routed, attended)

    def _positions(
        self, reference_points: Tensor, lidar_to_image: Tensor, image_size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return the BEV and the image part of the queries' position embeddings, (B, Q, C) each."""
        # Learned points may leave the range, which the embeddings were never shown.
        inside = reference_points.clamp(_REFERENCE_EPS, 1 - _REFERENCE_EPS)
        bev = self.bev_embedding(inside) + self.transformer.bev_type_embed
        points = inside * self._extent + self._lower
        return bev, self.rv_embedding.queries(points, lidar_to_image, image_size) + self.transformer.rv_type_embed
