# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Attention layer of the published routers (MoME and AQR-CMT) over the tokens around the queries.

Attribute names follow the published checkpoints' keys.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aqr_perception.models.aqr.published_windows import Windows
from aqr_perception.models.transformer.attention import MultiHeadAttention

_HEADS = 4
_BLOCK = 32
"""Number of windows per gather: their tokens fit into the processor's cache."""


class WindowEncoder(nn.Module):
    """One post-norm layer of cross-attention and feed-forward, and a final norm."""

    def __init__(self, channels: int, feedforward: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList((_Layer(channels, feedforward),))
        self.post_norm = nn.LayerNorm(channels)

    def forward(self, position: Tensor, keys: Tensor, values: Tensor, windows: Windows | None) -> Tensor:
        """Return (B, Q, C) features of the queries.

        Args:
            position: (B, Q, C) position embeddings; the queries have no content yet.
            keys, values: (B, K, C) tokens, with and without position.
            windows: windows of the queries; None for attention to all tokens.
        """
        encoded: Tensor = self.post_norm(self.layers[0](position, keys, values, windows))
        return encoded


class _Layer(nn.Module):
    def __init__(self, channels: int, feedforward: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList((nn.ModuleDict({"attn": MultiHeadAttention(channels, _HEADS)}),))
        first = nn.Sequential(nn.Linear(channels, feedforward), nn.ReLU(inplace=True))
        layers = nn.Sequential(first, nn.Linear(feedforward, channels))
        self.ffns = nn.ModuleList((nn.ModuleDict({"layers": layers}),))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))

    def forward(self, position: Tensor, keys: Tensor, values: Tensor, windows: Windows | None) -> Tensor:
        attention = cast(MultiHeadAttention, cast(nn.ModuleDict, self.attentions[0])["attn"])
        if windows is None:
            attended, _ = attention(position, keys, values)
        else:
            attended = _attend(attention, position, keys, values, windows)
        state = self.norms[0](attended)
        encoded: Tensor = self.norms[1](state + cast(nn.ModuleDict, self.ffns[0])["layers"](state))
        return encoded


def _attend(attention: MultiHeadAttention, query: Tensor, keys: Tensor, values: Tensor, windows: Windows) -> Tensor:
    """Return the attention's output (B, Q, C) for queries that see only the tokens of their windows.

    q . (K k) = (K^T q) . k, and a weighted sum of projections is the projection of the weighted sum. Therefore this
    function projects a few hundred queries and sums instead of tens of thousands of tokens. The keys' bias adds the
    same to all scores of a query, and the softmax cancels it.
    """
    heads = attention.heads
    to_query, to_key, to_value = (
        weight.view(heads, -1, weight.shape[-1]) for weight in attention.in_proj_weight.chunk(3)
    )
    query_bias, _, value_bias = (bias.view(heads, -1) for bias in attention.in_proj_bias.chunk(3))
    projected = torch.einsum("bqc,hdc->bqhd", query, to_query) + query_bias
    projected = torch.einsum("bqhd,hdc->bqhc", projected * projected.shape[-1] ** -0.5, to_key).flatten(0, 1)

    offset = torch.arange(len(keys), device=keys.device)[:, None, None] * keys.shape[1]
    tokens, inside = (windows.tokens + offset).flatten(0, 1), windows.inside.flatten(0, 1)
    by_token, content = keys.flatten(0, 1), values.flatten(0, 1)
    sums: list[Tensor] = []
    blocks = zip(torch.split(projected, _BLOCK), torch.split(tokens, _BLOCK), torch.split(inside, _BLOCK), strict=True)
    for block in blocks:
        if torch.is_grad_enabled():  # gathers the tokens again in the backward pass instead of keeping them
            sums.append(checkpoint(_attend_block, *block, by_token, content, use_reentrant=False))
        else:
            sums.append(_attend_block(*block, by_token, content))
    output = torch.einsum("phc,hdc->phd", torch.cat(sums), to_value) + value_bias
    attended: Tensor = attention.out_proj(output.flatten(1))
    return attended.view(*query.shape[:2], -1)


def _attend_block(queries: Tensor, tokens: Tensor, inside: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return each head's weighted sum of tokens (P, heads, C) for P windows; zero for an empty one."""
    scores = (queries @ keys[tokens].transpose(1, 2)).float()
    # The dtype's minimum instead of minus infinity: the softmax of an empty window would be NaN.
    scores = scores.masked_fill(~inside[:, None], torch.finfo(scores.dtype).min)
    shares = scores.softmax(-1) * inside[:, None]
    return shares.to(values.dtype) @ values[tokens]
