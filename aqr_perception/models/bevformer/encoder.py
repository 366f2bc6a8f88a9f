# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""BEVFormer's encoder: BEV cells attend to the history and to the cameras (arXiv:2203.17270, 3.2).

Attribute names follow the published checkpoints' keys.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from aqr_perception.models.bevformer.deformable_attention import Shapes
from aqr_perception.models.bevformer.spatial import SpatialCrossAttention, Visibility
from aqr_perception.models.bevformer.temporal import TemporalSelfAttention
from aqr_perception.models.transformer.decoder import FeedForward


class CameraEvidence(NamedTuple):
    """Image features that the encoder attends to.

    Attributes:
        features: (B, V, cells of all levels, C) of the cameras.
        shapes: rows and columns of the levels.
        visibility: the BEV cells that each camera sees.
    """

    features: Tensor
    shapes: Shapes
    visibility: Visibility


class AlignedHistory(NamedTuple):
    """The previous frame's BEV features, rotated to the current heading.

    Attributes:
        bev: (B, N, C).
        shift: (B, 2), the vehicle's translation since then, x and y as a share of the grid: a cell's offset from the
            current to the previous frame.
    """

    bev: Tensor
    shift: Tensor


class _Layer(nn.Module):
    def __init__(self, channels: int, heads: int, feedforward: int, levels: int, points: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(
            (TemporalSelfAttention(channels, heads), SpatialCrossAttention(channels, heads, levels, points))
        )
        self.ffns = nn.ModuleList((FeedForward(channels, feedforward),))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))

    def forward(
        self,
        queries: Tensor,
        position: Tensor,
        values: tuple[Tensor, Tensor] | None,
        references: Tensor,
        grid: tuple[int, int],
        evidence: CameraEvidence,
    ) -> Tensor:
        temporal, spatial = self.attentions
        past, present = values or (queries, queries)
        queries = self.norms[0](temporal(queries, position, past, present, references, grid))
        queries = self.norms[1](spatial(queries, *evidence))
        output: Tensor = self.norms[2](self.ffns[0](queries))
        return output


class Encoder(nn.Module):
    """A stack of layers of temporal self-attention, spatial cross-attention and feed-forward, post-norm."""

    def __init__(self, channels: int, heads: int, feedforward: int, layers: int, levels: int, points: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(channels, heads, feedforward, levels, points) for _ in range(layers))

    def forward(
        self,
        queries: Tensor,
        position: Tensor,
        history: AlignedHistory | None,
        evidence: CameraEvidence,
        grid: tuple[int, int],
    ) -> Tensor:
        """Return BEV features (B, N, C), row by row.

        Args:
            queries: (B, N, C), one per cell.
            position: (N, C) embedding of the cells.
            history: None without history: each layer's queries replace it.
            evidence: image features of the cameras.
            grid: rows (y) and columns (x).
        """
        centres = _centres(grid, queries.device).expand(len(queries), -1, -1)
        past_centres = centres if history is None else centres + history.shift[:, None]
        references = torch.stack((past_centres, centres), dim=1)
        # As published, every layer attends to the queries as they were before the first layer.
        values = None if history is None else (history.bev, queries)
        for layer in self.layers:
            queries = layer(queries, position, values, references, grid, evidence)
        return queries


def _centres(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Return (N, 2), the cells' centres row by row, x and y in 0..1."""
    rows, columns = grid
    y, x = torch.meshgrid(
        (torch.arange(rows, device=device) + 0.5) / rows,
        (torch.arange(columns, device=device) + 0.5) / columns,
        indexing="ij",
    )
    return torch.stack((x, y), dim=-1).flatten(0, 1)
