"""The blocks of a Vision Transformer: global and windowed attention, layer scale, stochastic depth.

Parameter names follow timm's and DINOv2's, which agree.
"""

from math import ceil
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NORM_EPS = 1e-6  # both libraries'; LayerNorm's own default is ten times that


class TokenGrid(NamedTuple):
    """How the tokens (N, prefix + rows * columns, C) of an image lie.

    Attributes:
        prefix: class and register tokens, which come first.
        rows, columns: of the patches, which follow row by row.
    """

    prefix: int
    rows: int
    columns: int


class Attention(nn.Module):
    """Multi-head self-attention (Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929).

    With a window, a patch looks at its window's patches and at the class and register tokens alone, while these look
    at everything; one window over the whole image is global attention. Where the window does not divide the image, the
    windows are made smaller until they fit most evenly, and what still hangs over is masked.

    Args:
        channels, heads: of the tokens; channels is a multiple of heads.
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
        return self.proj(mixed.transpose(1, 2).flatten(2))


def _windowed_attention(query: Tensor, key: Tensor, value: Tensor, grid: TokenGrid, window: int) -> Tensor:
    """Return (N, heads, L, d) for queries, keys and values shaped so."""
    images = len(query)
    sides = _even_side(grid.rows, window), _even_side(grid.columns, window)
    patches = [_partition(tensor[:, :, grid.prefix :], grid, sides) for tensor in (query, key, value)]
    windows = len(patches[0]) // images

    def beside_every_window(tensor: Tensor, parts: Tensor) -> Tensor:
        return torch.cat((tensor[:, :, : grid.prefix].repeat_interleave(windows, dim=0), parts), dim=2)

    mask = None
    if grid.rows % sides[0] or grid.columns % sides[1]:
        real = _partition(query.new_ones(1, 1, grid.rows * grid.columns, 1), grid, sides)[..., 0] > 0
        # (N * windows, 1, 1, keys). No window lies outside altogether, so no row of the softmax is empty.
        mask = F.pad(real, (grid.prefix, 0), value=True).repeat(images, 1, 1)[:, :, None]
    mixed = F.scaled_dot_product_attention(
        patches[0], beside_every_window(key, patches[1]), beside_every_window(value, patches[2]), attn_mask=mask
    )
    whole = _merge(mixed, images, grid, sides)
    if not grid.prefix:
        return whole
    return torch.cat((F.scaled_dot_product_attention(query[:, :, : grid.prefix], key, value), whole), dim=2)


def _even_side(length: int, window: int) -> int:
    return ceil(length / ceil(length / window))


def _partition(patches: Tensor, grid: TokenGrid, sides: tuple[int, int]) -> Tensor:
    """Return (N * windows, heads, rows * columns of a window, d) of (N, heads, rows * columns, d), padded by zeros."""
    padding = (0, 0, 0, -grid.columns % sides[1], 0, -grid.rows % sides[0])
    padded = F.pad(patches.unflatten(2, (grid.rows, grid.columns)), padding)
    split = padded.unflatten(3, (-1, sides[1])).unflatten(2, (-1, sides[0]))  # N, heads, down, h, across, w, d
    return split.permute(0, 2, 4, 1, 3, 5, 6).reshape(-1, patches.shape[1], sides[0] * sides[1], patches.shape[-1])


def _merge(windows: Tensor, images: int, grid: TokenGrid, sides: tuple[int, int]) -> Tensor:
    """Undo `_partition`."""
    down, across = ceil(grid.rows / sides[0]), ceil(grid.columns / sides[1])
    split = windows.unflatten(2, sides).unflatten(0, (images, down, across))  # N, down, across, heads, h, w, d
    padded = split.permute(0, 3, 1, 4, 2, 5, 6).flatten(4, 5).flatten(2, 3)
    return padded[:, :, : grid.rows, : grid.columns].flatten(2, 3)


class FeedForward(nn.Module):
    """Two linear layers with a GELU between, four times as wide inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (N, L, C) for (N, L, C) tokens."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class LayerScale(nn.Module):
    """A learned factor for every channel (Touvron et al. 2021, https://arxiv.org/abs/2103.17239)."""

    def __init__(self, channels: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), initial))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (N, L, C) for (N, L, C) tokens."""
        return tokens * self.gamma


class StochasticDepth(nn.Module):
    """Leaves a residual out in training, image by image (Huang et al. 2016, https://arxiv.org/abs/1603.09382).

    Args:
        rate: share of the images whose residual is left out. The others' is raised, so that the mean stays.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, residual: Tensor) -> Tensor:
        """Return (N, L, C) for a residual (N, L, C); the very same tensor in evaluation."""
        if not self.training or self.rate == 0:
            return residual
        kept = torch.full((len(residual), 1, 1), 1 - self.rate, device=residual.device).bernoulli() / (1 - self.rate)
        return residual * kept.to(residual.dtype)


class Block(nn.Module):
    """Attention and feed-forward, each a residual.

    Args:
        channels, heads: of the tokens.
        norm: ``pre``: residual = scale(layer(norm(x))), as timm and DINOv2 have it; ``post``: residual =
            norm(layer(x)), as in Swin v2 (Liu et al. 2021, https://arxiv.org/abs/2111.09883) and timm's ResPostBlock,
            where the norm's own weight is the layer scale.
        layer_scale: initial factor of the residuals; 0 for none.
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
            return tokens + self.drop_path(self.ls2(self.mlp(self.norm2(tokens))))
        tokens = tokens + self.drop_path(self.norm1(self.attn(tokens, grid)))
        return tokens + self.drop_path(self.norm2(self.mlp(tokens)))


def layer_norm(channels: int) -> nn.LayerNorm:
    """Return the norm over channels that Vision Transformers are trained with."""
    return nn.LayerNorm(channels, eps=_NORM_EPS)
