# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Blocks of a Vision Transformer: global and windowed attention, layer scale, stochastic depth.

Parameter names follow timm and DINOv2.
"""

from math import ceil
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NORM_EPS = 1e-6  # as in timm and DINOv2; the default of LayerNorm is ten times larger


class TokenGrid(NamedTuple):
    """Layout of an image's tokens (N, prefix + rows * columns, C).

    Attributes:
        prefix: number of class and register tokens, which come first.
        rows, columns: size of the grid of patches, which follow row by row.
    """

    prefix: int
    rows: int
    columns: int


class Attention(nn.Module):
    """Multi-head self-attention (Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929).

    With windows, a patch attends to the patches of its window and to the class and register tokens, which attend to all
    tokens. If the window size does not divide the image, windows shrink until they fit as evenly as possible, and cells
    beyond the image are masked.

    Args:
        channels: channels of the tokens, a multiple of ``heads``.
        heads: number of attention heads.
        window: largest side of a window in patches; 0 for global attention.
    """

    def __init__(self, channels: int, heads: int, window: int = 0) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, grid: TokenGrid) -> Tensor:
        """Return (N, L, C) for (N, L, C) tokens."""
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if 0 < self.window < max(grid.rows, grid.columns):
            mixed = _windowed_attention(query, key, value, grid, self.window)
        else:
            mixed = F.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return output


def _windowed_attention(query: Tensor, key: Tensor, value: Tensor, grid: TokenGrid, window: int) -> Tensor:
    """Return (N, heads, L, d) for queries, keys and values (N, heads, L, d)."""
    images = len(query)
    sides = _even_side(grid.rows, window), _even_side(grid.columns, window)
    patches = [_partition(tensor[:, :, grid.prefix :], grid, sides) for tensor in (query, key, value)]
    windows = len(patches[0]) // images

    def with_prefix(tensor: Tensor, parts: Tensor) -> Tensor:
        return torch.cat((tensor[:, :, : grid.prefix].repeat_interleave(windows, dim=0), parts), dim=2)

    mask = None
    if grid.rows % sides[0] or grid.columns % sides[1]:
        real = _partition(query.new_ones(1, 1, grid.rows * grid.columns, 1), grid, sides)[..., 0] > 0
        # (N * windows, 1, 1, keys). No window is completely outside the image, so no row of the softmax is empty.
        mask = F.pad(real, (grid.prefix, 0), value=True).repeat(images, 1, 1)[:, :, None]
    mixed = F.scaled_dot_product_attention(
        patches[0], with_prefix(key, patches[1]), with_prefix(value, patches[2]), attn_mask=mask
    )
    patches_output = _merge(mixed, images, grid, sides)
    if not grid.prefix:
        return patches_output
    return torch.cat((F.scaled_dot_product_attention(query[:, :, : grid.prefix], key, value), patches_output), dim=2)


def _even_side(length: int, window: int) -> int:
    """Return the smallest side of windows that cover a length with as few windows as sides of ``window`` would."""
    return ceil(length / ceil(length / window))


def _partition(patches: Tensor, grid: TokenGrid, sides: tuple[int, int]) -> Tensor:
    """Return (N * windows, heads, cells of a window, d) for (N, heads, rows * columns, d), padded with zeros."""
    padding = (0, 0, 0, -grid.columns % sides[1], 0, -grid.rows % sides[0])
    padded = F.pad(patches.unflatten(2, (grid.rows, grid.columns)), padding)
    split = padded.unflatten(3, (-1, sides[1])).unflatten(2, (-1, sides[0]))  # N, heads, down, h, across, w, d
    by_window: Tensor = split.permute(0, 2, 4, 1, 3, 5, 6)
    return by_window.reshape(-1, patches.shape[1], sides[0] * sides[1], patches.shape[-1])


def _merge(windows: Tensor, images: int, grid: TokenGrid, sides: tuple[int, int]) -> Tensor:
    """Undo `_partition`."""
    down, across = ceil(grid.rows / sides[0]), ceil(grid.columns / sides[1])
    split = windows.unflatten(2, sides).unflatten(0, (images, down, across))  # N, down, across, heads, h, w, d
    padded: Tensor = split.permute(0, 3, 1, 4, 2, 5, 6).flatten(4, 5).flatten(2, 3)
    return padded[:, :, : grid.rows, : grid.columns].flatten(2, 3)


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them and four times as many hidden channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (N, L, C) for (N, L, C) tokens."""
        output: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return output


class LayerScale(nn.Module):
    """Learned factor per channel (Touvron et al. 2021, https://arxiv.org/abs/2103.17239)."""

    def __init__(self, channels: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), initial))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (N, L, C) for (N, L, C) tokens."""
        return tokens * self.gamma


class StochasticDepth(nn.Module):
    """Random removal of residuals in training, per image (Huang et al. 2016, https://arxiv.org/abs/1603.09382).

    Args:
        rate: probability that an image's residual is removed. The other residuals are scaled up to preserve the mean.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, residual: Tensor) -> Tensor:
        """Return (N, L, C) for a residual (N, L, C); in evaluation mode, the residual itself."""
        if not self.training or self.rate == 0:
            return residual
        keep = torch.full((len(residual), 1, 1), 1 - self.rate, device=residual.device).bernoulli()
        return residual * (keep / (1 - self.rate)).to(residual.dtype)


class Block(nn.Module):
    """Attention and feed-forward layers, each with a residual connection.

    Args:
        channels, heads: see `Attention`.
        norm: ``pre``: residual = scale(layer(norm(x))), as in timm and DINOv2; ``post``: residual = norm(layer(x)), as
            in Swin v2 (Liu et al. 2021, https://arxiv.org/abs/2111.09883) and timm's ResPostBlock, in which the weight
            of the norm is the layer scale.
        layer_scale: initial factor of the residuals; 0 for no layer scale.
        drop: rate of stochastic depth.
        window: see `Attention`.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        norm: Literal["pre", "post"] = "pre",
        layer_scale: float = 0.0,
        drop: float = 0.0,
        window: int = 0,
    ) -> None:
        super().__init__()
        self.pre_norm = norm == "pre"
        self.norm1, self.norm2 = layer_norm(channels), layer_norm(channels)
        self.attn = Attention(channels, heads, window)
        self.mlp = FeedForward(channels)
        scaled = layer_scale > 0 and self.pre_norm
        self.ls1 = LayerScale(channels, layer_scale) if scaled else nn.Identity()
        self.ls2 = LayerScale(channels, layer_scale) if scaled else nn.Identity()
        self.drop_path = StochasticDepth(drop)
        if layer_scale > 0 and not self.pre_norm:
            for layer in (self.norm1, self.norm2):
                nn.init.constant_(layer.weight, layer_scale)

    def forward(self, tokens: Tensor, grid: TokenGrid) -> Tensor:
        """Return (N, L, C) for (N, L, C) tokens."""
        if self.pre_norm:
            tokens = tokens + self.drop_path(self.ls1(self.attn(self.norm1(tokens), grid)))
            residual: Tensor = self.drop_path(self.ls2(self.mlp(self.norm2(tokens))))
        else:
            tokens = tokens + self.drop_path(self.norm1(self.attn(tokens, grid)))
            residual = self.drop_path(self.norm2(self.mlp(tokens)))
        return tokens + residual


def layer_norm(channels: int) -> nn.LayerNorm:
    """Return the layer norm of Vision Transformers."""
    return nn.LayerNorm(channels, eps=_NORM_EPS)
