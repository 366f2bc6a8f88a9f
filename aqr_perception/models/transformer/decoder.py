# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""CMT's transformer decoder: post-norm layers of self-attention, cross-attention and feed-forward (arXiv:2301.01283).

Attribute names follow the keys of the published checkpoints.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from aqr_perception.models.aqr.window_bias import WindowBias
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.models.transformer.attention import MultiHeadAttention


class Memory(NamedTuple):
    """Tokens that the queries attend to: keys (B, K, C) with and values (B, K, C) without position embedding."""

    keys: Tensor
    values: Tensor
    layout: TokenLayout


class Decoded(NamedTuple):
    """Queries (L, B, Q, C) after each layer, and the last layer's attention mass (B, Q, 1 + V) if requested."""

    queries: Tensor
    mass: Tensor | None


ProjectedTokens = tuple[Tensor, Tensor]
"""Keys and values (B, heads, K, d) of a layer's cross-attention."""


class AttentionBlock(nn.Module):
    """Container of an attention; the published checkpoints' keys have this extra level."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attn = MultiHeadAttention(channels, heads)


class FeedForward(nn.Module):
    """Two linear layers with a residual connection."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        first = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True))
        self.layers = nn.Sequential(first, nn.Linear(hidden, channels))

    def forward(self, target: Tensor) -> Tensor:
        update: Tensor = self.layers(target)
        return target + update


class DecoderLayer(nn.Module):
    """Self-attention among queries, cross-attention to the memory and feed-forward, each with a residual and a norm."""

    def __init__(self, channels: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList((AttentionBlock(channels, heads), AttentionBlock(channels, heads)))
        self.ffns = nn.ModuleList((FeedForward(channels, feedforward),))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))

    def forward(
        self,
        target: Tensor,
        position: Tensor,
        memory: Memory,
        bias: WindowBias | None = None,
        mask: Tensor | None = None,
        return_mass: bool = False,
        projected: ProjectedTokens | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the queries (B, Q, C) after this layer and, if requested, their attention mass (B, Q, 1 + V).

        Args:
            target, position: (B, Q, C), content and position embedding of the queries.
            memory: see `Memory`.
            bias: added to the cross-attention logits inside the queries' windows.
            mask: (Q, Q) bool, true where the row's query must not attend to the column's (denoising queries).
            return_mass: whether to return the attention mass by segment.
            projected: the result of `project` for the memory; None to compute it.
        """
        self_attention, cross_attention = (cast(AttentionBlock, attention).attn for attention in self.attentions)
        positioned = target + position
        target = self.norms[0](target + self_attention(positioned, positioned, target, mask=mask)[0])
        attended, mass = cross_attention(
            target + position,
            memory.keys,
            memory.values,
            layout=memory.layout,
            bias=bias,
            return_mass=return_mass,
            projected=projected,
        )
        target = self.norms[1](target + attended)
        return self.norms[2](self.ffns[0](target)), mass

    def project(self, memory: Memory) -> ProjectedTokens:
        """Return the memory as the cross-attention's keys and values; see `MultiHeadAttention.project`."""
        return cast(AttentionBlock, self.attentions[1]).attn.project(memory.keys, memory.values)


class TransformerDecoder(nn.Module):
    """A stack of layers. A shared norm is applied to each layer's output, but not to the next layer's input."""

    def __init__(self, channels: int, heads: int, feedforward: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(channels, heads, feedforward) for _ in range(layers))
        self.post_norm = nn.LayerNorm(channels)

    def forward(
        self,
        position: Tensor,
        memory: Memory,
        bias: WindowBias | None = None,
        mask: Tensor | None = None,
        return_mass: bool = False,
        content: Tensor | None = None,
        projected: Sequence[ProjectedTokens] | None = None,
    ) -> Decoded:
        """Decode queries at (B, Q, C) position embeddings.

        Args:
            content: (B, Q, C), initial content of the queries; zero if None.
            projected: the result of `project` for the memory; None to compute it layer by layer, in less space.
            position, memory, bias, mask, return_mass: see `DecoderLayer.forward`.
        """
        target = torch.zeros_like(position) if content is None else content
        outputs, mass = [], None
        for index, layer in enumerate(self.layers):
            last = index == len(self.layers) - 1
            tokens = None if projected is None else projected[index]
            target, mass = layer(target, position, memory, bias, mask, return_mass and last, tokens)
            outputs.append(self.post_norm(target))
        return Decoded(torch.stack(outputs), mass)

    def project(self, memory: Memory) -> list[ProjectedTokens]:
        """Return the memory as each layer's keys and values, for `forward`."""
        return [cast(DecoderLayer, layer).project(memory) for layer in self.layers]


class Transformer(nn.Module):
    """Container of the decoder; the published checkpoints' keys have this extra level."""

    def __init__(self, decoder: TransformerDecoder) -> None:
        super().__init__()
        self.decoder = decoder
