# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""ResNet (He et al. 2016, https://arxiv.org/abs/1512.03385), optionally with deformable convolutions."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.image.deformable_convolution import DeformableConvolution
from aqr_perception.models.image.views import view_by_view
from aqr_perception.models.ops.convolution import convolve


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (ResNet-18)."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _downsample(in_channels, channels, stride)

    def forward(self, features: Tensor) -> Tensor:
        hidden = convolve(features, self.conv1, self.bn1, relu=True)
        return convolve(hidden, self.conv2, self.bn2, relu=True, residual=_shortcut(features, self.downsample))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut (ResNet-50 and deeper).

    Args:
        deformable: whether the 3x3 convolution is deformable.
        stride_first: whether the first convolution is strided, as in Caffe, instead of the 3x3 one.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, channels: int, stride: int, deformable: bool = False, stride_first: bool = False
    ) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        first, second = (stride, 1) if stride_first else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2: nn.Conv2d | DeformableConvolution = (
            DeformableConvolution(channels, channels, second)
            if deformable
            else nn.Conv2d(channels, channels, 3, second, padding=1, bias=False)
        )
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _downsample(in_channels, out_channels, stride)

    def forward(self, features: Tensor) -> Tensor:
        hidden = convolve(features, self.conv1, self.bn1, relu=True)
        if isinstance(self.conv2, DeformableConvolution):
            hidden = F.relu(self.bn2(self.conv2(hidden)), inplace=True)
        else:
            hidden = convolve(hidden, self.conv2, self.bn2, relu=True)
        return convolve(hidden, self.conv3, self.bn3, relu=True, residual=_shortcut(features, self.downsample))


def _downsample(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


def _shortcut(features: Tensor, downsample: nn.Sequential | None) -> Tensor:
    if downsample is None:
        return features
    convolution, norm = cast(tuple[nn.Conv2d, nn.BatchNorm2d], tuple(downsample))
    return convolve(features, convolution, norm)


_LAYOUTS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


class ResNet(nn.Module):
    """ResNet without its classifier. Parameter names follow torchvision and mmdet.

    Args:
        depth: 18, 50 or 101.
        out_stages: stages to return, ascending: 1 to 4 are strides 4, 8, 16, 32.
        deformable_stages: stages with deformable 3x3 convolutions; none with depth 18.
        stride_first: see `Bottleneck`.
        width: channels of the first stage; 64 in the published models.
    """

    def __init__(
        self,
        depth: int = 50,
        out_stages: tuple[int, ...] = (3, 4),
        deformable_stages: tuple[int, ...] = (),
        stride_first: bool = False,
        width: int = 64,
    ) -> None:
        super().__init__()
        if depth not in _LAYOUTS:
            raise ValueError(f"ResNet depth is {depth}, but must be one of {', '.join(map(str, _LAYOUTS))}")
        if not out_stages or list(out_stages) != sorted(set(out_stages) & {1, 2, 3, 4}):
            raise ValueError(f"ResNet out_stages is {out_stages}, but must be ascending stages out of 1, 2, 3, 4")
        block, counts = _LAYOUTS[depth]
        if block is BasicBlock and (deformable_stages or stride_first):
            raise ValueError(f"ResNet depth is {depth}, but deformable_stages and stride_first need 50 or 101")
        self.out_stages = tuple(out_stages)
        self.out_channels = tuple(width * 2 ** (stage - 1) * block.expansion for stage in out_stages)
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        in_channels = width
        for stage, count in enumerate(counts, start=1):
            channels, stride = width * 2 ** (stage - 1), 1 if stage == 1 else 2
            blocks: list[nn.Module] = []
            for index in range(count):
                step = stride if index == 0 else 1
                blocks.append(
                    BasicBlock(in_channels, channels, step)
                    if block is BasicBlock
                    else Bottleneck(in_channels, channels, step, stage in deformable_stages, stride_first)
                )
                in_channels = channels * block.expansion
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps of `out_stages` for (N, 3, H, W) normalised images, channels last in memory."""
        last = self.out_stages[-1]
        *early, features = view_by_view(self, lambda view: self._early_stages(view, min(last, 2)), images)
        *late, _ = self._stages(features, range(3, last + 1))
        return (*early, *late)

    def _early_stages(self, images: Tensor, last: int) -> tuple[Tensor, ...]:
        features = convolve(images.contiguous(memory_format=torch.channels_last), self.conv1, self.bn1, relu=True)
        return self._stages(F.max_pool2d(features, 3, stride=2, padding=1), range(1, last + 1))

    def _stages(self, features: Tensor, stages: range) -> tuple[Tensor, ...]:
        """Return the maps of those stages that are in `out_stages`, followed by the output of the last stage."""
        outputs = []
        for stage in stages:
            # `convolve` overwrites residuals, but no returned map: the first block of a stage has a shortcut
            # convolution, except in ResNet-18's first stage, whose input is not returned.
            features = self.get_submodule(f"layer{stage}")(features)
            if stage in self.out_stages:
                outputs.append(features)
        return (*outputs, features)
