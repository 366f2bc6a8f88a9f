# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Temporal self-attention of BEV cells to the history's and to the current cells (BEVFormer, 3.4)."""

import torch
from torch import Tensor, nn

from aqr_perception.models.bevformer.deformable_attention import Sampling, attend

_POINTS = 4


class TemporalSelfAttention(Sampling):
    """Mean of deformable attention to the past and to the present BEV features."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, heads, levels=1, points=_POINTS, context=2 * channels, maps=2)
        self.output_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.output_proj.weight)
        nn.init.zeros_(self.output_proj.bias)

    def forward(
        self,
        queries: Tensor,
        position: Tensor,
        past: Tensor,
        present: Tensor,
        references: Tensor,
        grid: tuple[int, int],
    ) -> Tensor:
        """Return the queries (B, N, C) plus the attended cells.

        Args:
            queries: (B, N, C), one per cell, row by row.
            position: (N, C) embedding of the cells.
            past, present: (B, N, C), BEV features of both frames; without history both are the queries.
            references: (B, 2, N, 2), each cell's position in past and present, x and y in 0..1 of the grid.
            grid: rows and columns.
        """
        # The authors' code uses only every second sample's past in batches of several samples.
        context = torch.cat((past, queries + position), dim=-1)
        offsets, weights = self.points(context, [grid])
        values = self.values(torch.stack((past, present), dim=1))
        places = references[:, :, :, None, None, None] + offsets.movedim(3, 1)
        weights = weights.movedim(3, 1).flatten(0, 1)
        attended = attend(values.flatten(0, 1), [grid], places.flatten(0, 1), weights)
        output: Tensor = queries + self.output_proj(attended.view(-1, 2, *attended.shape[1:]).mean(dim=1))
        return output
