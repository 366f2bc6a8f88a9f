# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parts of CMT under the published key `pts_bbox_head`: tokens, queries, decoder and prediction heads.

Attribute names follow the published checkpoints' keys.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.aqr import modulation, rendering
from aqr_perception.models.aqr.projection import QueryCells, project
from aqr_perception.models.boxes.task_heads import TaskHeads
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.model_io import Features, Predictions, Queries, QueryWeights
from aqr_perception.models.ops.convolution import convolve
from aqr_perception.models.proposals.queries import start_at_proposals
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.models.transformer.decoder import Memory, Transformer, TransformerDecoder
from aqr_perception.models.transformer.position_embedding import BevEmbedding, FrustumEmbedding
from aqr_perception.options import AqrOptions

_REFERENCE_EPS = 1e-5

_FIRST_GUESS_CODES = (3, 4, 5, 6, 7, 8, 9)
"""Entries of the box codes that the heads predict without the reference point."""


class Tokens(NamedTuple):
    """Evidence tokens of one batch.

    Attributes:
        features: (B, K, C).
        positions: (B, K, C), the tokens' position embeddings.
        layout: order of the tokens.
    """

    features: Tensor
    positions: Tensor
    layout: TokenLayout

    @property
    def memory(self) -> Memory:
        """The tokens as keys with and values without position embedding."""
        return Memory(self.features + self.positions, self.features, self.layout)

    def modulated(self, weights: QueryWeights, cells: QueryCells, queries: Queries, aqr: AqrOptions) -> "Tokens":
        """Return the tokens with features scaled by maps of the weights, in the form that the options name."""
        if aqr.modulation == "residual":
            first = queries.denoising  # denoising queries would reveal the true objects
            drawn = QueryCells(*(cell[:, first:] for cell in cells))
            lidar, cameras = weights.modality[:, first:, 0], weights.cameras[:, first:]
            maps = rendering.render_densities(lidar, cameras, drawn, self.layout, aqr)
            scaled = modulation.modulate_residually(self.features, maps, aqr.residual, aqr.strength)
        else:
            maps = torch.cat((weights.bev_map.flatten(1), weights.camera_maps.flatten(1)), dim=1)
            scaled = modulation.modulate(self.features, maps, aqr.strength)
        return self._replace(features=scaled)


class _SharedConvolution(nn.Module):
    """3 x 3 convolution, batch norm, ReLU: LiDAR BEV features to token channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        return convolve(features, self.conv, self.bn, relu=True)


class CmtHead(nn.Module):
    """Everything between feature maps and predictions; the model's `decode` calls the parts in order.

    Attributes:
        reference_points: (Q, 3) of the learned queries in 0..1 of the point range.
    """

    transformer: Transformer

    _lower: Tensor
    _extent: Tensor

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        config = preset.decoder
        self.point_range, self.bev_range = preset.point_range, preset.bev_range
        self.channels = config.channels
        self._image_pooling, self._bev_pooling = config.image_pooling, config.bev_pooling
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
            config.channels,
            len(preset.classes),
            config.layers,
            point_range=preset.point_range,
            kernel_size=config.head_kernel,
        )
        if config.proposals.count:
            start_at_proposals(self.task_heads.box_heads(), self.task_heads.class_heads())
        lower, upper = torch.tensor(preset.point_range[:3]), torch.tensor(preset.point_range[3:])
        self.register_buffer("_lower", lower, persistent=False)
        self.register_buffer("_extent", upper - lower, persistent=False)

    def learned_queries(self, batch_size: int) -> Queries:
        """Return the learned queries of a batch."""
        return Queries(self.reference_points.weight.expand(batch_size, -1, -1), 0, None)

    def tokens(self, features: Features) -> Tokens:
        """Return the LiDAR's BEV cells and the cameras' image cells as tokens."""
        parts, positions = [], []
        grid, views, cells = (0, 0), 0, (0, 0)
        if features.bev is not None:
            bev: Tensor = self.shared_conv(_pooled(features.bev, self._bev_pooling))
            grid = (bev.shape[2], bev.shape[3])
            parts.append(bev.flatten(2).transpose(1, 2))
            positions.append(self.bev_embedding.grid(*grid).expand(bev.shape[0], -1, -1))
        if features.image is not None:
            image = _pooled(features.image.flatten(0, 1), self._image_pooling)
            image = image.unflatten(0, features.image.shape[:2])
            views, cells = image.shape[1], (image.shape[3], image.shape[4])
            parts.append(image.flatten(3).transpose(2, 3).flatten(1, 2))
            position = self.rv_embedding.image_grid(features.lidar_to_image, *cells, features.image_size)
            positions.append(position.flatten(1, 2))
        if not parts:
            empty = self.reference_points.weight.new_zeros(features.batch_size, 0, self.channels)
            return Tokens(empty, empty, TokenLayout())
        return Tokens(torch.cat(parts, dim=1), torch.cat(positions, dim=1), TokenLayout(grid, views, cells))

    def points(self, queries: Queries) -> Tensor:
        """Return the queries' reference points (B, Q, 3) in metres, model frame."""
        return queries.reference_points * self._extent + self._lower

    def cells(self, queries: Queries, features: Features, layout: TokenLayout) -> QueryCells:
        """Return the BEV cells and image cells that contain the queries' reference points."""
        return project(self.points(queries), self.bev_range, features.lidar_to_image, features.image_size, layout)

    def query_positions(self, queries: Queries, features: Features) -> Tensor:
        """Return the (B, Q, C) position embeddings of the queries."""
        inside = embedded_points(queries)
        position: Tensor = self.bev_embedding(inside)
        if hasattr(self, "rv_embedding"):
            points = inside * self._extent + self._lower
            position = position + self.rv_embedding.queries(points, features.lidar_to_image, features.image_size)
        return position

    def predict(self, decoded: Tensor, queries: Queries, layers: slice) -> Predictions:
        """Return predictions from the decoder's outputs (L, B, Q, C) and the queries' initial estimates.

        Denoising queries have a separate pass, because the LiDAR-only model's heads mix neighbouring queries.
        """
        count, references = queries.denoising, queries.reference_points
        if queries.codes is not None:
            # The heads predict the log length relative to the reference's third entry; see `TaskHeads`.
            lengths = (queries.codes[..., 2:3] - self._lower[2]) / self._extent[2]
            references = torch.cat((references[..., :2], lengths), dim=-1)
        predictions = Predictions(*self.task_heads(decoded[:, :, count:], references[:, count:], layers=layers))
        if count > 0:
            denoising = self.task_heads(decoded[:, :, :count], references[:, :count], layers=layers)
            pairs = zip(denoising, predictions, strict=True)
            predictions = Predictions(*(torch.cat(pair, dim=2) for pair in pairs))
        return queries.add_first_guess(predictions, _FIRST_GUESS_CODES)


def _pooled(features: Tensor, edge: int) -> Tensor:
    """Return (N, C, h / edge, w / edge) means of squares of (N, C, h, w) features."""
    return features if edge == 1 else F.avg_pool2d(features, edge)


def embedded_points(queries: Queries) -> Tensor:
    """Return the queries' reference points (B, Q, 3) as the position embeddings were trained: inside 0..1."""
    return queries.reference_points.clamp(_REFERENCE_EPS, 1 - _REFERENCE_EPS)


def render_weights(
    modality: Tensor, cameras: Tensor, cells: QueryCells, layout: TokenLayout, queries: Queries, aqr: AqrOptions
) -> QueryWeights:
    """Return query weights with their maps.

    The maps leave out denoising queries, which start at the true objects and would reveal them.

    Args:
        modality, cameras: (B, Q, 2) and (B, Q, V) in 0..1.
        cells: cells of the queries.
        layout: layout of the tokens.
        aqr: options of the maps.
    """
    first = queries.denoising
    drawn = QueryCells(*(cell[:, first:] for cell in cells))
    bev_map = rendering.render_bev(modality[:, first:, 0], drawn, layout, aqr)
    return QueryWeights(modality, cameras, bev_map, rendering.render_cameras(cameras[:, first:], drawn, layout, aqr))


def render_attention(
    mass: Tensor | None, cells: QueryCells, layout: TokenLayout, queries: Queries, aqr: AqrOptions
) -> QueryWeights | None:
    """Return the decoder's attention mass (B, Q, 1 + V) as query weights; None without it."""
    if mass is None:
        return None
    lidar, cameras = mass[..., 0], mass[..., 1:]
    return render_weights(torch.stack((lidar, cameras.sum(-1)), dim=-1), cameras, cells, layout, queries, aqr)
