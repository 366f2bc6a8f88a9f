# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Attention with static shapes: one dense bias for all heads, instead of corrections inside windows."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.aqr.published_windows import Windows
from aqr_perception.models.aqr.window_bias import WindowBias
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.models.transformer.attention import MultiHeadAttention
from aqr_perception.models.transformer.window_encoder import WindowEncoder


class StaticAttention(MultiHeadAttention):
    """`MultiHeadAttention` with a (Q, K) bias tensor, which runtimes without our window correction can compute."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        layout: TokenLayout | None = None,
        bias: WindowBias | None = None,
        mask: Tensor | None = None,
        return_mass: bool = False,
        projected: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return (B, Q, C) and, if requested, the attention mass (B, Q, 1 + V); see `MultiHeadAttention.forward`."""
        added = None if bias is None else bias.dense()[:, None]
        if mask is not None:
            added = torch.zeros(mask.shape).masked_fill(mask, float("-inf"))
        queries, (keys, values) = self.ask(query), self.project(key, value) if projected is None else projected
        attended, mass = _attend(queries, keys, values, added, layout if return_mass else None)
        attended = attended.transpose(1, 2).flatten(2) + self.in_proj_bias.chunk(3)[2]
        return self.out_proj(attended), mass


def _attend(
    query: Tensor, key: Tensor, value: Tensor, added: Tensor | None, layout: TokenLayout | None
) -> tuple[Tensor, Tensor | None]:
    # Plain products, which runtimes fuse by themselves: PyTorch's fused attention returns its output in another layout.
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    attention = (scores if added is None else scores + added).softmax(-1)
    mass = None
    if layout is not None:
        average = attention.mean(1)
        mass = torch.stack([average[..., segment].sum(-1) for segment in layout.segments], dim=-1)
    return attention @ value, mass


class StaticWindowEncoder(WindowEncoder):
    """`WindowEncoder` with a mask over all tokens instead of gathered windows."""

    def forward(self, position: Tensor, keys: Tensor, values: Tensor, windows: Windows | None) -> Tensor:
        """Return (B, Q, C) features of the queries; see `WindowEncoder.forward`."""
        if windows is None:
            return super().forward(position, keys, values, None)
        layer = self.layers[0]
        attention = cast(MultiHeadAttention, cast(nn.ModuleDict, cast(nn.ModuleList, layer.attentions)[0])["attn"])
        state = self._norm(0)(_attend_windows(attention, position, keys, values, windows))
        feedforward = cast(nn.ModuleDict, cast(nn.ModuleList, layer.ffns)[0])["layers"]
        encoded: Tensor = self.post_norm(self._norm(1)(state + feedforward(state)))
        return encoded

    def _norm(self, index: int) -> nn.Module:
        return cast(nn.ModuleList, self.layers[0].norms)[index]


def _attend_windows(
    attention: MultiHeadAttention, query: Tensor, keys: Tensor, values: Tensor, near: Windows
) -> Tensor:
    """Return the attention's output (B, Q, C) for queries that see only the tokens of their windows."""
    seen = torch.zeros(query.shape[0], query.shape[1], keys.shape[1])
    # Tokens outside the grid have index 0, so their zeros are added to a token that may be inside.
    seen = seen.scatter_add(2, near.tokens, near.inside.float())[:, None] > 0
    query_bias, _, value_bias = attention.in_proj_bias.chunk(3)
    to_query, to_key, to_value = attention.in_proj_weight.chunk(3)
    split = (attention.heads, -1)
    queries = F.linear(query, to_query, query_bias).unflatten(-1, split).transpose(1, 2)
    tokens = F.linear(keys, to_key).unflatten(-1, split).transpose(1, 2)
    content = F.linear(values, to_value).unflatten(-1, split).transpose(1, 2)
    scores = (queries * queries.shape[-1] ** -0.5) @ tokens.transpose(-1, -2)
    # The dtype's minimum instead of minus infinity: the softmax of an empty window would be NaN.
    shares = scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(-1) * seen
    output: Tensor = attention.out_proj((shares @ content).transpose(1, 2).flatten(2) + value_bias)
    return output
