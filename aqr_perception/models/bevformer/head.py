"""From image features and history to predictions: bird's-eye view, decoder and prediction branches.

Attribute names follow the published checkpoints' keys.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from aqr_perception.frame import CLASSES
from aqr_perception.models.bevformer.camera_weights import camera_shares, query_weights
from aqr_perception.models.bevformer.decoder import Decoded, Decoder
from aqr_perception.models.bevformer.deformable_attention import Shapes
from aqr_perception.models.bevformer.ego_motion import EgoMotion, turned
from aqr_perception.models.bevformer.encoder import Encoder, Evidence, Past
from aqr_perception.models.bevformer.spatial import Sight, look, pillars
from aqr_perception.models.boxes.coder import SHAPE_CODES
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.head_output import HeadOutput, Predictions, Queries
from aqr_perception.models.petr.position import QueryEncoder, ring_places
from aqr_perception.models.petr.prediction_branches import class_branches, located
from aqr_perception.options import AqrOptions

_VEHICLE = 18
_CODE = 10
_STORED_LEVELS = 4
"""Level embeddings in a published file, however many levels the model looks at."""


class Cameras(NamedTuple):
    """What the cameras of one batch show.

    Attributes:
        features: (B, V, cells of all levels, C); V is 0 without any.
        shapes: rows and columns of every level, finest first.
        lidar_to_image: (B, V, 4, 4), model frame -> pixels.
        image_size: height and width of the images in pixels.
    """

    features: Tensor
    shapes: Shapes
    lidar_to_image: Tensor
    image_size: tuple[int, int]


class Survey(NamedTuple):
    """What a bird's-eye view was made of: the cameras, and which cells they see."""

    cameras: Cameras
    sight: Sight


class _PositionEmbedding(nn.Module):
    """Learned for every row and column."""

    def __init__(self, channels: int, rows: int, columns: int) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(rows, channels // 2)
        self.col_embed = nn.Embedding(columns, channels // 2)
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    def forward(self) -> Tensor:
        """Return (N, C), the cells' row by row: the column's half comes first."""
        row, column = self.row_embed.weight[:, None], self.col_embed.weight[None]
        rows, columns = len(row), column.shape[1]
        return torch.cat((column.expand(rows, -1, -1), row.expand(-1, columns, -1)), dim=-1).flatten(0, 1)


class _Transformer(nn.Module):
    def __init__(self, preset: Preset) -> None:
        super().__init__()
        config, options = preset.decoder, preset.bevformer
        channels = config.channels
        self.level_embeds = nn.Parameter(torch.randn(_STORED_LEVELS, channels))
        self.cams_embeds = nn.Parameter(torch.randn(len(options.camera_azimuths), channels))
        self.encoder = Encoder(
            channels, config.heads, config.feedforward, options.encoder_layers, options.levels, options.points
        )
        self.decoder = Decoder(channels, config.heads, config.feedforward, config.layers)
        self.reference_points = nn.Linear(channels, 3)
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)
        self.can_bus_mlp = nn.Sequential(
            nn.Linear(_VEHICLE, channels // 2), nn.ReLU(), nn.Linear(channels // 2, channels), nn.ReLU()
        )
        self.can_bus_mlp.add_module("norm", nn.LayerNorm(channels))


def _box_branch(channels: int) -> nn.Sequential:
    hidden = (nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels), nn.ReLU())
    return nn.Sequential(*hidden, nn.Linear(channels, _CODE))


class BevFormerHead(nn.Module):
    """A bird's-eye view gathers what the cameras show and what the history knows; object queries look at it.

    Attributes:
        point_range: x, y, z minimum and maximum in metres that the bird's-eye view and box centres span.
        grid: rows (y) and columns (x) of the bird's-eye view.
    """

    _azimuths: Tensor
    _pillars: Tensor

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        config, options = preset.decoder, preset.bevformer
        channels = config.channels
        columns, rows = options.grid
        self.point_range = preset.point_range
        self.grid = (rows, columns)
        x_min, y_min, _, x_max, y_max, _ = preset.point_range
        self._extent = (x_max - x_min, y_max - y_min)
        vehicle = (-x_min / self._extent[0] * columns, -y_min / self._extent[1] * rows)
        self._rotation_centre = options.rotation_centre or vehicle
        self.register_buffer("_azimuths", torch.tensor(options.camera_azimuths).deg2rad(), persistent=False)
        self.register_buffer("_pillars", pillars(preset.point_range, self.grid, options.heights), persistent=False)
        # In the published files, but read by their authors' training loss alone.
        self.register_buffer("code_weights", torch.ones(_CODE))
        self.positional_encoding = _PositionEmbedding(channels, rows, columns)
        self.transformer = _Transformer(preset)
        self.cls_branches = class_branches(channels, len(CLASSES), config.layers, shared=False)
        self.reg_branches = nn.ModuleList(_box_branch(channels) for _ in range(config.layers))
        self.bev_embedding = nn.Embedding(rows * columns, channels)
        self.query_embedding = nn.Embedding(config.queries, 2 * channels)
        # A learned query knows its place; a proposal is somewhere else in every frame, and has to be told.
        self.place_embedding = QueryEncoder(channels) if config.proposals.count else None

    def survey(self, cameras: Cameras, motion: EgoMotion, history: Tensor | None) -> tuple[Tensor, Survey]:
        """Return the bird's-eye view (B, N, C), row by row, and what it was made of.

        Args:
            cameras: what they show.
            motion: the vehicle's since the frame before.
            history: (B, N, C), the `HeadOutput.state` of that frame; None without: then the queries stand in for it.

        Raises:
            ValueError: the history is not of this model and batch.
        """
        vehicle = self.transformer.can_bus_mlp(motion.vehicle.to(self.bev_embedding.weight.device))
        queries = self.bev_embedding.weight + vehicle[:, None]
        past = None
        if history is not None:
            if history.shape != queries.shape:
                raise ValueError(
                    f"the history has shape {tuple(history.shape)}, needed {tuple(queries.shape)}: give back the state "
                    "that this model returned for the same batch"
                )
            shift = motion.way.to(queries.device) / motion.way.new_tensor(self._extent).to(queries.device)
            past = Past(turned(history.detach(), motion.turn, self.grid, self._rotation_centre), shift)
        sight = look(self._pillars, cameras.lidar_to_image, cameras.image_size)
        evidence = Evidence(self._embedded(cameras), cameras.shapes, sight)
        bev = self.transformer.encoder(queries, self.positional_encoding(), past, evidence, self.grid)
        return bev, Survey(cameras, sight)

    def forward(
        self,
        bev: Tensor,
        survey: Survey,
        aqr: AqrOptions,
        *,
        attention_weights: bool = False,
        queries: Queries | None = None,
        layers: slice = slice(None),
    ) -> HeadOutput:
        """Detect objects in one batch.

        Args:
            bev, survey: see `survey`.
            aqr: how weight maps are drawn.
            attention_weights: whether to return weights by camera; see `camera_weights.camera_shares`.
            queries: where the queries start, and with what beside their learned content; None for the learned ones.
            layers: the decoder layers whose predictions are computed.
        """
        decoded = self._decode(bev, queries)
        predictions = self._predict(decoded, layers)
        if queries is not None:
            predictions = queries.added_to(predictions, SHAPE_CODES)
        weights = None
        if attention_weights:
            cameras = survey.cameras
            weights = query_weights(
                camera_shares(decoded.glance, survey.sight, self.grid),
                predictions.boxes[-1][..., (0, 1, 4)],
                self.point_range,
                cameras.lidar_to_image,
                cameras.image_size,
                cameras.shapes[0],
                aqr,
            )
        return HeadOutput(predictions, None, weights, bev.detach())

    def _embedded(self, cameras: Cameras) -> Tensor:
        """Return the features (B, V, cells, C) with what tells cameras and levels apart."""
        places = ring_places(cameras.lidar_to_image, cameras.image_size, self._azimuths)
        sizes = torch.tensor([rows * columns for rows, columns in cameras.shapes], device=places.device)
        levels = self.transformer.level_embeds[: len(sizes)].repeat_interleave(sizes, dim=0)
        return cameras.features + self.transformer.cams_embeds[places][:, :, None] + levels

    def learned_references(self) -> Tensor:
        """Return (Q, 3) in 0..1 of the point range, where queries look first."""
        position, _ = self.query_embedding.weight.chunk(2, dim=1)
        return self.transformer.reference_points(position).float().sigmoid()

    def _decode(self, bev: Tensor, queries: Queries | None) -> Decoded:
        position, content = (part.expand(len(bev), -1, -1) for part in self.query_embedding.weight.chunk(2, dim=1))
        references = self.learned_references().expand(len(bev), -1, -1)
        if queries is not None:
            references = queries.reference_points
            content = content if queries.content is None else content + queries.content
        if self.place_embedding is not None:
            position = position + self.place_embedding.embed(references)
        return self.transformer.decoder(content, position, bev, references, self.grid, self.reg_branches)

    def _predict(self, decoded: Decoded, layers: slice) -> Predictions:
        """Return the chosen layers' predictions; what the branches say of the centre starts from the layer's point."""
        branches = list(self.cls_branches)[layers]
        logits = [branch(queries) for branch, queries in zip(branches, decoded.queries[layers], strict=True)]
        boxes = located(decoded.raw_boxes[layers], decoded.references[layers], self.point_range, None)
        return Predictions(torch.stack(logits), boxes)
