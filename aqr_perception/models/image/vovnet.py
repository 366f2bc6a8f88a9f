# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""VoVNet V-99 with effective squeeze-and-excitation (Lee and Park 2020, https://arxiv.org/abs/1911.06667)."""

from collections import OrderedDict
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.image.views import view_by_view
from aqr_perception.models.ops.convolution import convolve


class _ConvolutionNorm(nn.Module):
    """Convolution, batch norm and ReLU. Names include the position in the network, as in published checkpoints."""

    def __init__(self, in_channels: int, out_channels: int, name: str, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.add_module(f"{name}/conv", nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False))
        self.add_module(f"{name}/norm", nn.BatchNorm2d(out_channels))

    def forward(self, features: Tensor) -> Tensor:
        convolution, norm = cast(tuple[nn.Conv2d, nn.BatchNorm2d], tuple(self.children()))
        return convolve(features, convolution, norm, relu=True)


class _Stem(nn.Module):
    """Three 3x3 convolutions to stride 4. As in the published checkpoints, all modules are direct children."""

    def __init__(self) -> None:
        super().__init__()
        for index, (in_channels, out_channels, stride) in enumerate(((3, 64, 2), (64, 64, 1), (64, 128, 2)), start=1):
            for name, module in _ConvolutionNorm(
                in_channels, out_channels, f"stem_{index}", stride=stride
            ).named_children():
                self.add_module(name, module)

    def forward(self, images: Tensor) -> Tensor:
        modules = list(self.children())
        for convolution, norm in zip(modules[::2], modules[1::2], strict=True):
            images = convolve(images, cast(nn.Conv2d, convolution), cast(nn.BatchNorm2d, norm), relu=True)
        return images


class EffectiveSqueezeExcitation(nn.Module):
    """Channel-wise scaling by a hard sigmoid, relu6(x + 3) / 6, of a linear map of the channel means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the (N, C, 1, 1) factors for (N, C, H, W) features."""
        return F.hardsigmoid(self.fc(features.mean((2, 3), keepdim=True)))


class OneShotAggregation(nn.Module):
    """Five successive 3x3 convolutions and a 1x1 convolution of the concatenated input and outputs.

    Args:
        in_channels, channels, out_channels: channels of the input, of the 3x3 convolutions and of the output.
        name: name of the block, part of the parameters' names.
        identity: whether the input is added to the output.
    """

    def __init__(self, in_channels: int, channels: int, out_channels: int, name: str, identity: bool) -> None:
        super().__init__()
        self.identity = identity
        self.layers = nn.ModuleList(
            _ConvolutionNorm(in_channels if index == 0 else channels, channels, f"{name}_{index}") for index in range(5)
        )
        self.concat = _ConvolutionNorm(in_channels + 5 * channels, out_channels, f"{name}_concat", kernel_size=1)
        self.ese = EffectiveSqueezeExcitation(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, out_channels, H, W) for (N, in_channels, H, W) features."""
        collected = [features]
        for layer in self.layers:
            collected.append(layer(collected[-1]))
        mixed: Tensor = self.concat(torch.cat(collected, dim=1))
        excitation: Tensor = self.ese(mixed)
        if not self.identity:
            return mixed * excitation
        return torch.addcmul(features, mixed, excitation)


_STAGES = ((128, 256, 1), (160, 512, 3), (192, 768, 9), (224, 1024, 3))
"""Stages 2 to 5: channels of the 3x3 convolutions, channels of the output, and number of blocks."""


class VoVNet(nn.Module):
    """VoVNet-99-eSE, as in CMT and PETR, with outputs of stages 4 and 5 (strides 16 and 32, 768 and 1024 channels)."""

    out_channels = (768, 1024)
    stage2: nn.Sequential
    stage3: nn.Sequential
    stage4: nn.Sequential
    stage5: nn.Sequential

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Stem()
        in_channels = 128
        for stage, (channels, out_channels, blocks) in enumerate(_STAGES, start=2):
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            if stage > 2:
                # ceil_mode: an odd last row or column becomes a cell.
                layers["Pooling"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
            for block in range(blocks):
                name = f"OSA{stage}_{block + 1}"
                layers[name] = OneShotAggregation(in_channels, channels, out_channels, name, identity=block > 0)
                in_channels = out_channels
            self.add_module(f"stage{stage}", nn.Sequential(layers))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (N, 768, ~H/16, ~W/16) and (N, 1024, ~H/32, ~W/32) of (N, 3, H, W) normalised images."""
        (stage4,) = view_by_view(self, self._early_stages, images)
        return stage4, self.stage5(stage4)

    def _early_stages(self, images: Tensor) -> tuple[Tensor]:
        features = self.stem(images.contiguous(memory_format=torch.channels_last))
        return (self.stage4(self.stage3(self.stage2(features))),)
