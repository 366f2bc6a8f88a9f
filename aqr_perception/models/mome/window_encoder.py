"""The layer with which MoME's router looks at the windows of the queries.

Attribute names follow the published checkpoints' keys.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aqr_perception.models.mome.windows import Windows
from aqr_perception.models.transformer.attention import MultiHeadAttention

_HEADS = 4
_BLOCK = 32
"""Windows gathered at a time: their tokens fit the processor's cache."""


class WindowEncoder(nn.Module):
    """One post-norm layer of cross-attention and feed-forward, and a last norm."""

    def __init__(self, channels: int, feedforward: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList((_Layer(channels, feedforward),))
        self.post_norm = nn.LayerNorm(channels)

    def forward(self, position: Tensor, keys: Tensor, values: Tensor, windows: Windows) -> Tensor:
        """Return (B, Q, C) of what queries at (B, Q, C) position embeddings see in their windows.

        Args:
            position: the queries have no content yet.
            keys, values: (B, K, C) tokens, with and without position.
            windows: of the queries.
        """
        return self.post_norm(self.layers[0](position, keys, values, windows))


class _Layer(nn.Module):
    def __init__(self, channels: int, feedforward: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList((nn.ModuleDict({"attn": MultiHeadAttention(channels, _HEADS)}),))
        first = nn.Sequential(nn.Linear(channels, feedforward), nn.ReLU(inplace=True))
        layers = nn.Sequential(first, nn.Linear(feedforward, channels))
        self.ffns = nn.ModuleList((nn.ModuleDict({"layers": layers}),))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))

    def forward(self, position: Tensor, keys: Tensor, values: Tensor, windows: Windows) -> Tensor:
        attention = cast(MultiHeadAttention, cast(nn.ModuleDict, self.attentions[0])["attn"])
        state = self.norms[0](_attend(attention, position, keys, values, windows))
        return self.norms[1](state + cast(nn.ModuleDict, self.ffns[0])["layers"](state))


def _attend(attention: MultiHeadAttention, query: Tensor, keys: Tensor, values: Tensor, windows: Windows) -> Tensor:
    """Return the attention's output (B, Q, C) for queries that see the tokens of their windows alone.

    q . (K k) = (K^T q) . k, and a weighted sum of projections is the projection of the weighted sum: so queries and
    sums are projected, a few hundred, and not tens of thousands of tokens. The keys' bias adds the same to all scores
    of a query, which softmax does not notice.
    """
    to_query, to_key, to_value = (
        weight.unflatten(0, (attention.heads, -1)) for weight in attention.in_proj_weight.chunk(3)
    )
    query_bias, _, value_bias = (bias.unflatten(0, (attention.heads, -1)) for bias in attention.in_proj_bias.chunk(3))
    asked = torch.einsum("bqc,hdc->bqhd", query, to_query) + query_bias
    asked = torch.einsum("bqhd,hdc->bqhc", asked * asked.shape[-1] ** -0.5, to_key).flatten(0, 1)

    offset = torch.arange(len(keys), device=keys.device)[:, None, None] * keys.shape[1]
    tokens, inside = (windows.tokens + offset).flatten(0, 1), windows.inside.flatten(0, 1)
    by_token, content = keys.flatten(0, 1), values.flatten(0, 1)
    seen = []
    for block in zip(asked.split(_BLOCK), tokens.split(_BLOCK), inside.split(_BLOCK), strict=True):
        if torch.is_grad_enabled():  # the gathered tokens are fetched again in the backward pass, not kept
            seen.append(checkpoint(_attend_block, *block, by_token, content, use_reentrant=False))
        else:
            seen.append(_attend_block(*block, by_token, content))
    output = torch.einsum("phc,hdc->phd", torch.cat(seen), to_value) + value_bias
    return attention.out_proj(output.flatten(1)).unflatten(0, query.shape[:2])


def _attend_block(asked: Tensor, tokens: Tensor, inside: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return each head's weighted sum of tokens (P, heads, C) for P windows; zero for an empty one."""
    scores = (asked @ keys[tokens].transpose(1, 2)).float()
    # Not minus infinity: the softmax of an empty window would be NaN.
    scores = scores.masked_fill(~inside[:, None], torch.finfo(scores.dtype).min)
    shares = scores.softmax(-1) * inside[:, None]
    return shares.to(values.dtype) @ values[tokens]
