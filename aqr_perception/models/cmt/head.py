"""From feature maps to predictions: tokens, query weights, decoder and prediction heads (CMT with AQR).

Attribute names follow the published checkpoints' keys.
"""

import torch
from torch import Tensor, nn

from aqr_perception.frame import CLASSES
from aqr_perception.models.aqr import modulation, rendering, window_bias
from aqr_perception.models.aqr.projection import QueryCells, project
from aqr_perception.models.aqr.router import Router
from aqr_perception.models.boxes.task_heads import TaskHeads
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.head_output import HeadOutput, Predictions, Queries, QueryWeights
from aqr_perception.models.ops.convolution import convolve
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.models.transformer.decoder import Memory, Transformer, TransformerDecoder
from aqr_perception.models.transformer.position_embedding import BevEmbedding, FrustumEmbedding
from aqr_perception.options import AqrOptions

_ADDED_CODES = (3, 4, 5, 6, 7, 8, 9)
"""Of the codes' numbers, those that the heads do not start from the reference themselves."""


class _SharedConvolution(nn.Module):
    """3 x 3 convolution, batch norm, ReLU: LiDAR BEV features to token channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        return convolve(features, self.conv, self.bn, relu=True)


class QueryHead(nn.Module):
    """Learned queries, tokens with their position embeddings, and predictions; subclasses say how evidence is gathered.

    Attributes:
        reference_points: (Q, 3) in 0..1 of the point range, the queries' own.
    """

    transformer: Transformer

    _lower: Tensor
    _extent: Tensor

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        config = preset.decoder
        self.point_range = preset.point_range
        self.channels = config.channels
        if preset.points is not None:
            self.shared_conv = _SharedConvolution(2 * preset.points.neck_channels, config.channels)
        self.transformer = Transformer(
            TransformerDecoder(config.channels, config.heads, config.feedforward, config.layers)
        )
        self.reference_points = nn.Embedding(config.queries, 3)
        nn.init.uniform_(self.reference_points.weight, 0.0, 1.0)
        self.bev_embedding = BevEmbedding(config.channels)
        if preset.image is not None:
            self.rv_embedding = FrustumEmbedding(config.channels, config.depths, preset.point_range)
        self.task_heads = TaskHeads(
            config.channels, len(CLASSES), config.layers, point_range=preset.point_range, kernel_size=config.head_kernel
        )
        lower, upper = torch.tensor(preset.point_range[:3]), torch.tensor(preset.point_range[3:])
        self.register_buffer("_lower", lower, persistent=False)
        self.register_buffer("_extent", upper - lower, persistent=False)

    def _predict(self, decoded: Tensor, queries: Queries, layers: slice) -> Predictions:
        """Return predictions for the decoder's outputs (L, B, Q, C).

        Denoising queries by themselves: the LiDAR-only model's heads look at neighbouring queries.
        """
        return queries.added_to(self._predict_anew(decoded, queries, layers), _ADDED_CODES)

    def _predict_anew(self, decoded: Tensor, queries: Queries, layers: slice) -> Predictions:
        count, references = queries.denoising, queries.reference_points
        if queries.codes is not None:
            # What the heads say of the log length starts from their reference's third number; see `TaskHeads`.
            lengths = (queries.codes[..., 2:3] - self._lower[2]) / self._extent[2]
            references = torch.cat((references[..., :2], lengths), dim=-1)
        matching = self.task_heads(decoded[:, :, count:], references[:, count:], layers=layers)
        if count == 0:
            return Predictions(*matching)
        denoising = self.task_heads(decoded[:, :, :count], references[:, :count], layers=layers)
        return Predictions(*(torch.cat(pair, dim=2) for pair in zip(denoising, matching, strict=True)))

    def _tokens(
        self, bev: Tensor | None, image: Tensor | None, lidar_to_image: Tensor, image_size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, TokenLayout]:
        """Return features (B, K, C), position embeddings (B or 1, K, C) and the layout of all tokens."""
        features, positions = [], []
        grid, views, cells = (0, 0), 0, (0, 0)
        if bev is not None:
            bev = self.shared_conv(bev)
            grid = (bev.shape[2], bev.shape[3])
            features.append(bev.flatten(2).transpose(1, 2))
            positions.append(self.bev_embedding.grid(*grid).expand(bev.shape[0], -1, -1))
        if image is not None:
            views, cells = image.shape[1], (image.shape[3], image.shape[4])
            features.append(image.flatten(3).transpose(2, 3).flatten(1, 2))
            positions.append(self.rv_embedding.image_grid(lidar_to_image, *cells, image_size).flatten(1, 2))
        if not features:
            empty = self.reference_points.weight.new_zeros(lidar_to_image.shape[0], 0, self.channels)
            return empty, empty, TokenLayout()
        return torch.cat(features, dim=1), torch.cat(positions, dim=1), TokenLayout(grid, views, cells)

    @staticmethod
    def _render(
        modality: Tensor, cameras: Tensor, cells: QueryCells, layout: TokenLayout, aqr: AqrOptions, skip: int
    ) -> QueryWeights:
        shown = QueryCells(*(cell[:, skip:] for cell in cells))
        bev = rendering.render_bev(modality[:, skip:, 0], shown, layout, aqr)
        return QueryWeights(modality, cameras, bev, rendering.render_cameras(cameras[:, skip:], shown, layout, aqr))


class FusionHead(QueryHead):
    """Queries gather evidence from LiDAR and camera tokens; see `forward`."""

    def forward(
        self,
        bev: Tensor | None,
        image: Tensor | None,
        lidar_to_image: Tensor,
        image_size: tuple[int, int],
        router: Router | None,
        aqr: AqrOptions,
        *,
        attention_weights: bool = False,
        queries: Queries | None = None,
        layers: slice = slice(None),
    ) -> HeadOutput:
        """Detect objects in one batch of feature maps.

        Args:
            bev: (B, C, H, W) of the LiDAR; None without it.
            image: (B, V, C, h, w) of the cameras; None without them.
            lidar_to_image: (B, V, 4, 4), model frame -> pixels.
            image_size: height and width of the images in pixels.
            router: gives the query weights; None where there is none, or where nobody needs them.
            aqr: how the weights are used.
            attention_weights: whether to also return weights from the attention mass.
            queries: instead of the learned queries alone.
            layers: the decoder layers whose predictions are computed.
        """
        batch = lidar_to_image.shape[0]
        if queries is None:
            queries = Queries(self.reference_points.weight.expand(batch, -1, -1), 0, None)
        points = queries.reference_points * self._extent + self._lower
        features, positions, layout = self._tokens(bev, image, lidar_to_image, image_size)
        query_positions = self._query_positions(queries.reference_points, points, lidar_to_image, image_size)
        cells = project(points, self.point_range, lidar_to_image, image_size, layout)

        routed, bias = None, None
        if router is not None:
            weights = router(query_positions, features + positions, features, cells, layout, aqr)
            # Denoising queries start at the true objects: in the shared maps they would give the answer away.
            routed = self._render(weights.modality, weights.cameras, cells, layout, aqr, skip=queries.denoising)
            if aqr.modulates:
                maps = torch.cat((routed.bev_map.flatten(1), routed.camera_maps.flatten(1)), dim=1)
                features = modulation.modulate(features, maps, aqr.strength)
            if aqr.biases:
                bias = window_bias.build(cells, weights.modality[..., 0], weights.cameras, layout, aqr)

        memory = Memory(features + positions, features, layout)
        decoded = self.transformer.decoder(
            query_positions, memory, bias, queries.mask, attention_weights, content=queries.content
        )
        attended = None
        if decoded.mass is not None:
            modality = torch.stack((decoded.mass[..., 0], decoded.mass[..., 1:].sum(-1)), dim=-1)
            attended = self._render(modality, decoded.mass[..., 1:], cells, layout, aqr, skip=queries.denoising)
        return HeadOutput(self._predict(decoded.queries, queries, layers), routed, attended)

    def _query_positions(
        self, reference_points: Tensor, points: Tensor, lidar_to_image: Tensor, image_size: tuple[int, int]
    ) -> Tensor:
        position = self.bev_embedding(reference_points)
        if hasattr(self, "rv_embedding"):
            position = position + self.rv_embedding.queries(points, lidar_to_image, image_size)
        return position
