"""Temporal self-attention: every BEV cell looks at the history's cells and at the present ones (BEVFormer, 3.4)."""

import torch
from torch import Tensor, nn

from aqr_perception.models.bevformer.deformable_attention import Sampling, attend

_POINTS = 4


class TemporalSelfAttention(Sampling):
    """Deformable attention over two BEVs, past and present, whose results are averaged."""

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
        """Return the queries (B, N, C) with what they found.

        Args:
            queries: (B, N, C), one a cell, row by row.
            position: (N, C) embedding of the cells.
            past, present: (B, N, C), what is looked at; without history both are the queries.
            references: (B, 2, N, 2), where each cell lies in past and present, x and y in 0..1 of the grid.
            grid: rows and columns.
        """
        # The authors take the past of every second sample only, where a batch has several.
        context = torch.cat((past, queries + position), dim=-1)
        offsets, weights = self.points(context, [grid])
        values = self.values(torch.stack((past, present), dim=1))
        places = references[:, :, :, None, None, None] + offsets.movedim(3, 1)
        seen = attend(values.flatten(0, 1), [grid], places.flatten(0, 1), weights.movedim(3, 1).flatten(0, 1))
        return queries + self.output_proj(seen.unflatten(0, (-1, 2)).mean(dim=1))
