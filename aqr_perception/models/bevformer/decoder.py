# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""BEVFormer's decoder: object queries attend to BEV features around points that every layer refines.

Attribute names follow the published checkpoints' keys.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from aqr_perception.models.bevformer.deformable_attention import Sampling, attend
from aqr_perception.models.transformer.decoder import AttentionBlock, FeedForward

_POINTS = 4
_CENTRE = (0, 1, 4)
"""Entries of a box code for x, y and z."""
_EPS = 1e-5


class SamplingPoints(NamedTuple):
    """Sampling points of the queries in the BEV grid.

    Attributes:
        places: (B, Q, heads, P, 2), positions x and y in 0..1 of the grid.
        weights: (B, Q, heads, P), which sum to 1 over the points.
    """

    places: Tensor
    weights: Tensor


class Decoded(NamedTuple):
    """The decoder's output.

    Attributes:
        queries: (L, B, Q, C) after every layer.
        raw_boxes: (L, B, Q, 10), outputs of the layers' box branches.
        references: (L, B, Q, 3), each layer's reference points in 0..1 of the point range.
        samples: sampling points of the last layer.
    """

    queries: Tensor
    raw_boxes: Tensor
    references: Tensor
    samples: SamplingPoints


class _CrossAttention(Sampling):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, heads, levels=1, points=_POINTS)
        self.output_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.output_proj.weight)
        nn.init.zeros_(self.output_proj.bias)

    def forward(
        self, queries: Tensor, bev: Tensor, references: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, SamplingPoints]:
        offsets, weights = (part[:, :, :, 0] for part in self.points(queries, [grid]))
        places = references[:, :, None, None, None, :2] + offsets
        attended = attend(self.values(bev), [grid], places, weights)
        return self.output_proj(attended), SamplingPoints(places[:, :, :, 0], weights[:, :, :, 0])


class _Layer(nn.Module):
    def __init__(self, channels: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList((AttentionBlock(channels, heads), _CrossAttention(channels, heads)))
        self.ffns = nn.ModuleList((FeedForward(channels, feedforward),))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))

    def forward(
        self, queries: Tensor, position: Tensor, bev: Tensor, references: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, SamplingPoints]:
        self_attention, cross_attention = cast(tuple[AttentionBlock, _CrossAttention], tuple(self.attentions))
        located = queries + position
        queries = self.norms[0](queries + self_attention.attn(located, located, queries)[0])
        attended, samples = cross_attention(queries + position, bev, references, grid)
        queries = self.norms[1](queries + attended)
        return self.norms[2](self.ffns[0](queries)), samples


class Decoder(nn.Module):
    """A stack of layers, each of which attends around the points that the previous one refined."""

    def __init__(self, channels: int, heads: int, feedforward: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(channels, heads, feedforward) for _ in range(layers))

    def forward(
        self,
        queries: Tensor,
        position: Tensor,
        bev: Tensor,
        references: Tensor,
        grid: tuple[int, int],
        branches: nn.ModuleList,
    ) -> Decoded:
        """Decode object queries.

        Args:
            queries, position: (B, Q, C), content and position embedding.
            bev: (B, N, C) BEV features, row by row.
            references: (B, Q, 3), initial reference points in 0..1 of the point range.
            grid: rows and columns of the BEV.
            branches: one per layer, queries -> raw box codes.
        """
        outputs, boxes, layer_references = [], [], []
        for layer, branch in zip(self.layers, branches, strict=True):
            layer_references.append(references)
            queries, samples = layer(queries, position, bev, references, grid)
            raw = branch(queries).float()
            references = refine(references, raw).detach()
            outputs.append(queries)
            boxes.append(raw)
        return Decoded(torch.stack(outputs), torch.stack(boxes), torch.stack(layer_references), samples)


def refine(references: Tensor, raw_boxes: Tensor) -> Tensor:
    """Return reference points (..., 3) in 0..1 of the point range, moved by the centre of raw box codes (..., 10)."""
    return (torch.logit(references, eps=_EPS) + raw_boxes[..., _CENTRE]).sigmoid()
