# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parts of BEVFormer under the published key `pts_bbox_head`: encoder, decoder and prediction branches.

Attribute names follow the published checkpoints' keys.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from aqr_perception.models.bevformer.bevformer_options import BevFormerOptions
from aqr_perception.models.bevformer.camera_weights import camera_shares, query_weights
from aqr_perception.models.bevformer.decoder import Decoded, Decoder
from aqr_perception.models.bevformer.deformable_attention import Shapes
from aqr_perception.models.bevformer.ego_motion import CAN_BUS_SIZE, EgoMotion, rotate_bev
from aqr_perception.models.bevformer.encoder import AlignedHistory, CameraEvidence, Encoder
from aqr_perception.models.bevformer.spatial import Visibility, pillars, project_pillars
from aqr_perception.models.boxes.coder import SHAPE_CODES
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.model_io import BOX_CODE, Predictions, Queries, QueryWeights
from aqr_perception.models.petr.position import QueryEncoder, ring_places
from aqr_perception.models.petr.prediction_branches import class_branches, to_box_codes
from aqr_perception.models.proposals.queries import start_at_proposals
from aqr_perception.options import AqrOptions

_STORED_LEVELS = 4
"""Number of level embeddings in a published file, for any number of levels that the model uses."""


class Cameras(NamedTuple):
    """Image features of one batch and the cameras' geometry.

    Attributes:
        features: (B, V, cells of all levels, C); V is 0 without cameras.
        shapes: rows and columns of every level, finest first.
        lidar_to_image: (B, V, 4, 4), model frame -> pixels.
        image_size: height and width of the images in pixels.
    """

    features: Tensor
    shapes: Shapes
    lidar_to_image: Tensor
    image_size: tuple[int, int]


class BirdsEyeView(NamedTuple):
    """The encoder's output.

    Attributes:
        cells: (B, N, C), row by row.
        grid: rows (y) and columns (x).
        visibility: the BEV cells that each camera sees.
    """

    cells: Tensor
    grid: tuple[int, int]
    visibility: Visibility


class _PositionEmbedding(nn.Module):
    """Learned position embedding of every row and column."""

    def __init__(self, channels: int, rows: int, columns: int) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(rows, channels // 2)
        self.col_embed = nn.Embedding(columns, channels // 2)
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    def forward(self) -> Tensor:
        """Return (N, C), row by row; the first half of the channels is the column's."""
        row, column = self.row_embed.weight[:, None], self.col_embed.weight[None]
        rows, columns = len(row), column.shape[1]
        return torch.cat((column.expand(rows, -1, -1), row.expand(-1, columns, -1)), dim=-1).flatten(0, 1)


class _Transformer(nn.Module):
    def __init__(self, preset: Preset) -> None:
        super().__init__()
        config, options = preset.decoder, preset.architecture_options(BevFormerOptions)
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
            nn.Linear(CAN_BUS_SIZE, channels // 2), nn.ReLU(), nn.Linear(channels // 2, channels), nn.ReLU()
        )
        self.can_bus_mlp.add_module("norm", nn.LayerNorm(channels))


def _box_branch(channels: int) -> nn.Sequential:
    hidden = (nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels), nn.ReLU())
    return nn.Sequential(*hidden, nn.Linear(channels, BOX_CODE))


class BevFormerHead(nn.Module):
    """Everything between image features and predictions; the model's `decode` calls the parts in order.

    Attributes:
        point_range: x, y, z minimum and maximum in metres that the BEV and box centres span.
        grid: rows (y) and columns (x) of the BEV.
    """

    _azimuths: Tensor
    _pillars: Tensor

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        config, options = preset.decoder, preset.architecture_options(BevFormerOptions)
        channels = config.channels
        columns, rows = options.grid
        self.point_range, self.bev_range = preset.point_range, preset.bev_range
        self.grid = (rows, columns)
        x_min, y_min, _, x_max, y_max, _ = preset.point_range
        self._extent = (x_max - x_min, y_max - y_min)
        vehicle = (-x_min / self._extent[0] * columns, -y_min / self._extent[1] * rows)
        self._rotation_centre = options.rotation_centre or vehicle
        self._box_convention = options.box_convention
        self.register_buffer("_azimuths", torch.tensor(options.camera_azimuths).deg2rad(), persistent=False)
        self.register_buffer("_pillars", pillars(preset.point_range, self.grid, options.heights), persistent=False)
        # The published files contain this buffer, which only the authors' training loss uses.
        self.register_buffer("code_weights", torch.ones(BOX_CODE))
        self.positional_encoding = _PositionEmbedding(channels, rows, columns)
        self.transformer = _Transformer(preset)
        self.cls_branches = class_branches(channels, len(preset.classes), config.layers, shared=False)
        self.reg_branches = nn.ModuleList(_box_branch(channels) for _ in range(config.layers))
        if config.proposals.count:
            start_at_proposals(self.reg_branches, self.cls_branches)
        self.bev_embedding = nn.Embedding(rows * columns, channels)
        self.query_embedding = nn.Embedding(config.queries, 2 * channels)
        # A learned query's embedding includes its position; a proposal's position changes by frame and is added.
        self.place_embedding = QueryEncoder(channels) if config.proposals.count else None

    def encode(self, cameras: Cameras, motion: EgoMotion, past: Tensor | None) -> BirdsEyeView:
        """Return BEV features from the cameras and the previous frame.

        Args:
            cameras: the current frame's image features.
            motion: the vehicle's motion since the previous frame.
            past: (B, N, C), the previous frame's BEV features; None without history: the queries replace them.

        Raises:
            ValueError: the previous frame belongs to another model or batch size.
        """
        can_bus = self.transformer.can_bus_mlp(motion.can_bus.to(self.bev_embedding.weight.device))
        queries = self.bev_embedding.weight + can_bus[:, None]
        history = None
        if past is not None:
            if past.shape != queries.shape:
                raise ValueError(
                    f"the history has shape {tuple(past.shape)}, needed {tuple(queries.shape)}: give the state that "
                    "this model returned for the same batch"
                )
            shift = motion.translation.to(queries.device) / motion.translation.new_tensor(self._extent).to(
                queries.device
            )
            rotated = rotate_bev(past.detach(), motion.rotation, self.grid, self._rotation_centre)
            history = AlignedHistory(rotated, shift)
        visibility = project_pillars(self._pillars, cameras.lidar_to_image, cameras.image_size)
        evidence = CameraEvidence(self._embedded(cameras), cameras.shapes, visibility)
        cells: Tensor = self.transformer.encoder(queries, self.positional_encoding(), history, evidence, self.grid)
        return BirdsEyeView(cells, self.grid, visibility)

    def _embedded(self, cameras: Cameras) -> Tensor:
        """Return the features (B, V, cells, C) plus the embeddings of camera and level."""
        places = ring_places(cameras.lidar_to_image, cameras.image_size, self._azimuths)
        sizes = torch.tensor([rows * columns for rows, columns in cameras.shapes], device=places.device)
        levels = self.transformer.level_embeds[: len(sizes)].repeat_interleave(sizes, dim=0)
        return cameras.features + self.transformer.cams_embeds[places][:, :, None] + levels

    def learned_queries(self, batch_size: int) -> Queries:
        """Return the learned queries of a batch; `decode` adds their content."""
        position, _ = self.query_embedding.weight.chunk(2, dim=1)
        references: Tensor = self.transformer.reference_points(position).float().sigmoid()
        return Queries(references.expand(batch_size, -1, -1), 0, None)

    def decode(self, bev: BirdsEyeView, queries: Queries) -> Decoded:
        """Return the queries after every decoder layer; adds each query's content to its learned content."""
        batch_size, references = len(bev.cells), queries.reference_points
        position, content = (part.expand(batch_size, -1, -1) for part in self.query_embedding.weight.chunk(2, dim=1))
        if queries.content is not None:
            content = content + queries.content
        if self.place_embedding is not None:
            position = position + self.place_embedding.embed(references)
        decoded: Decoded = self.transformer.decoder(
            content, position, bev.cells, references, bev.grid, self.reg_branches
        )
        return decoded

    def predict(self, decoded: Decoded, queries: Queries, layers: slice) -> Predictions:
        """Return some layers' predictions from the decoder's output and the queries' initial estimates."""
        branches = list(self.cls_branches)[layers]
        logits = [branch(outputs) for branch, outputs in zip(branches, decoded.queries[layers], strict=True)]
        raw, references = decoded.raw_boxes[layers], decoded.references[layers]
        boxes = to_box_codes(raw, references, self.point_range, None, self._box_convention)
        return queries.add_first_guess(Predictions(torch.stack(logits), boxes), SHAPE_CODES)

    def attention_weights(
        self, decoded: Decoded, predictions: Predictions, bev: BirdsEyeView, cameras: Cameras, aqr: AqrOptions
    ) -> QueryWeights:
        """Return the cameras' shares in the last layer's attention as query weights, drawn at the predicted boxes."""
        return query_weights(
            camera_shares(decoded.samples, bev.visibility, self.grid),
            predictions.boxes[-1][..., (0, 1, 4)],
            self.bev_range,
            cameras.lidar_to_image,
            cameras.image_size,
            cameras.shapes[0],
            aqr,
        )
