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
"""Side of a patch in pixels: DINOv2's 14 would give strides that no other backbone has."""


class VitSize(NamedTuple):
    """Width, blocks and heads of a Vision Transformer."""

    channels: int
    depth: int
    heads: int


VIT_SIZES = {
    "vit_tiny": VitSize(192, 12, 3),
    "vit_small": VitSize(384, 12, 6),
    "vit_base": VitSize(768, 12, 12),
    "vit_large": VitSize(1024, 24, 16),
}
"""By the names that timm and DINOv2 share; the tiny one is timm's alone."""


class PatchEmbedding(nn.Module):
    """One token for every patch of 16 x 16 pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, PATCH, stride=PATCH)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, C, H / 16, W / 16) of (N, 3, H, W) images.

        Raises:
            ValueError: the images hold no whole number of patches.
        """
        height, width = images.shape[-2:]
        if height % PATCH or width % PATCH:
            raise ValueError(
                f"images are {width} x {height} pixels, but a Vision Transformer needs multiples of {PATCH}: choose "
                "another image.size in the preset"
            )
        return self.proj(images)


def resample_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return (1, C, rows, columns) position embeddings of another grid, the very same ones where it is theirs.

    Bicubic and anti-aliased, in float32, as timm does it.
    """
    if positions.shape[-2:] == grid:
        return positions
    with torch.autocast(positions.device.type, enabled=False):
        return F.interpolate(positions.float(), grid, mode="bicubic", antialias=True).to(positions.dtype)


class VisionTransformer(nn.Module):
    """Images to one feature vector a patch, normalised, without a classifier.

    The class token and the registers (Darcet et al. 2023, https://arxiv.org/abs/2309.16588) have a fixed place, so
    their position embedding is part of themselves; files that hold it apart are converted when they are loaded.

    Args:
        size: width, blocks and heads.
        options: everything else.

    Raises:
        ValueError: there is a window, and more blocks are to have global attention than there are.
    """

    cls_token: nn.Parameter | None
    reg_token: nn.Parameter | None

    def __init__(self, size: VitSize, options: VitOptions) -> None:
        super().__init__()
        channels, depth, heads = size
        if options.window and options.global_blocks > depth:
            raise ValueError(
                f"image.vit.global_blocks is {options.global_blocks}, but the transformer has {depth} blocks"
            )
        self.out_channels = channels
        self.patch_embed = PatchEmbedding(channels)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels)) if options.class_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, options.registers, channels)) if options.registers else None
        self._side = options.positions
        self.pos_embed = nn.Parameter(torch.zeros(1, options.positions**2, channels))
        # Global attention comes last in equal groups of blocks (Li et al. 2022, ViTDet).
        whole = {(index + 1) * depth // options.global_blocks - 1 for index in range(options.global_blocks)}
        self.blocks = nn.ModuleList(
            Block(
                channels,
                heads,
                options.norm,
                options.layer_scale,
                options.drop_path * index / max(depth - 1, 1),  # the deeper, the more often
                0 if index in whole else options.window,
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
        return self.norm(features[:, prefix:]).transpose(1, 2).unflatten(2, (rows, columns))

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Return (1, C, rows, columns) position embeddings of a grid's patches."""
        return resample_positions(self.pos_embed.transpose(1, 2).unflatten(2, (self._side, self._side)), grid)


class VitBackbone(nn.Module):
    """A Vision Transformer under a simple feature pyramid: the feature maps that other backbones give.

    Attributes:
        out_channels: of every map.

    Args:
        size: width, blocks and heads of the transformer.
        options: everything else.
        stages: which maps `forward` returns, ascending: 2, 3 and 4 are strides 8, 16 and 32.
    """

    def __init__(self, size: VitSize, options: VitOptions, stages: tuple[int, ...] = (3, 4)) -> None:
        super().__init__()
        self.vit = VisionTransformer(size, options)
        self.pyramid = SimpleFeaturePyramid(size.channels, stages, options.pyramid_channels)
        self.out_channels = (options.pyramid_channels,) * len(stages)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the asked-for maps (N, pyramid channels, H / stride, W / stride) of (N, 3, H, W) normalised images."""
        return view_by_view(self, lambda view: self.pyramid(self.vit(view)), images)
