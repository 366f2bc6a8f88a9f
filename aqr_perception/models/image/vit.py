# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Vision Transformers (Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929) as image backbones."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.config.presets import VitOptions
from aqr_perception.models.image.pyramid import SimpleFeaturePyramid
from aqr_perception.models.image.views import view_by_view
from aqr_perception.models.image.vit_blocks import Block, TokenGrid, layer_norm

PATCH = 16
"""Side of a patch in pixels. DINOv2's 14 would give other strides than those of the other backbones."""


class VitSize(NamedTuple):
    """Width, number of blocks and number of heads of a Vision Transformer."""

    channels: int
    depth: int
    heads: int


VIT_SIZES = {
    "vit_tiny": VitSize(192, 12, 3),
    "vit_small": VitSize(384, 12, 6),
    "vit_base": VitSize(768, 12, 12),
    "vit_large": VitSize(1024, 24, 16),
}
"""Name, as in timm and DINOv2, -> size; only timm has the tiny one."""


class PatchEmbedding(nn.Module):
    """Embedding of patches of 16 x 16 pixels as tokens."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, PATCH, stride=PATCH)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, C, H / 16, W / 16) for (N, 3, H, W) images.

        Raises:
            ValueError: the image size is not a multiple of the patch size.
        """
        height, width = images.shape[-2:]
        if height % PATCH or width % PATCH:
            raise ValueError(
                f"images are {width} x {height} pixels, but must be multiples of {PATCH} for a Vision Transformer; "
                "change image.size in the preset"
            )
        patches: Tensor = self.proj(images)
        return patches


def resample_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return (1, C, rows, columns) position embeddings interpolated to a grid; unchanged for their own grid.

    The interpolation is bicubic with anti-aliasing, in float32, as in timm.
    """
    if positions.shape[-2:] == grid:
        return positions
    with torch.autocast(positions.device.type, enabled=False):
        return F.interpolate(positions.float(), grid, mode="bicubic", antialias=True).to(positions.dtype)


class VisionTransformer(nn.Module):
    """Vision Transformer without a classifier: one normalised feature vector per patch.

    The position embeddings of the class token and of the registers (Darcet et al. 2023,
    https://arxiv.org/abs/2309.16588) are part of these tokens; loading converts files that store them separately.

    Args:
        size: width, number of blocks and number of heads.
        options: all other options.

    Raises:
        ValueError: the options have windows, and more blocks with global attention than the transformer has.
    """

    cls_token: nn.Parameter | None
    reg_token: nn.Parameter | None

    def __init__(self, size: VitSize, options: VitOptions) -> None:
        super().__init__()
        channels, depth, heads = size
        if options.window and options.global_blocks > depth:
            raise ValueError(
                f"image.vit.global_blocks is {options.global_blocks}, but must be at most {depth}, the number of blocks"
            )
        self.out_channels = channels
        self.patch_embed = PatchEmbedding(channels)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels)) if options.class_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, options.registers, channels)) if options.registers else None
        self._side = options.positions
        self.pos_embed = nn.Parameter(torch.zeros(1, options.positions**2, channels))
        # The last block of each of several equal groups has global attention (Li et al. 2022, ViTDet).
        global_blocks = {(index + 1) * depth // options.global_blocks - 1 for index in range(options.global_blocks)}
        self.blocks = nn.ModuleList(
            Block(
                channels,
                heads,
                options.norm,
                options.layer_scale,
                options.drop_path * index / max(depth - 1, 1),  # deeper blocks are dropped more often
                0 if index in global_blocks else options.window,
            )
            for index in range(depth)
        )
        self.norm = layer_norm(channels)
        self._initialise()

    def _initialise(self) -> None:
        """Draw random weights as timm and DINOv2 do."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for token in (self.cls_token, self.reg_token):
            if token is not None:
                nn.init.normal_(token, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, C, H / 16, W / 16) features of (N, 3, H, W) normalised images, channels last in memory."""
        patches = self.patch_embed(images)
        rows, columns = patches.shape[-2:]
        patches = patches + self.positions((rows, columns))
        tokens = [token.expand(len(images), -1, -1) for token in (self.cls_token, self.reg_token) if token is not None]
        prefix = sum(token.shape[1] for token in tokens)
        features = torch.cat((*tokens, patches.flatten(2).transpose(1, 2)), dim=1)
        for block in self.blocks:
            features = block(features, TokenGrid(prefix, rows, columns))
        normalised: Tensor = self.norm(features[:, prefix:])
        return _to_map(normalised.transpose(1, 2), (rows, columns))

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Return (1, C, rows, columns) position embeddings of the patches of a grid."""
        return resample_positions(_to_map(self.pos_embed.transpose(1, 2), (self._side, self._side)), grid)


def _to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return (N, C, rows, columns) for (N, C, rows * columns) tokens."""
    features: Tensor = tokens.unflatten(2, grid)
    return features


class VitBackbone(nn.Module):
    """Vision Transformer with a simple feature pyramid, for maps with the strides of the other backbones.

    Attributes:
        out_channels: channels of each map.

    Args:
        size: width, number of blocks and number of heads of the transformer.
        options: all other options.
        stages: maps to return, ascending: 2, 3 and 4 are strides 8, 16 and 32.
    """

    def __init__(self, size: VitSize, options: VitOptions, stages: tuple[int, ...] = (3, 4)) -> None:
        super().__init__()
        self.vit = VisionTransformer(size, options)
        self.pyramid = SimpleFeaturePyramid(size.channels, stages, options.pyramid_channels)
        self.out_channels = (options.pyramid_channels,) * len(stages)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps (N, pyramid channels, H / stride, W / stride) of (N, 3, H, W) normalised images."""
        return view_by_view(self, lambda view: self.pyramid(self.vit(view)), images)
