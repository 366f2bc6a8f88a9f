# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Folding of batch norms into convolutions: in evaluation mode a norm is one scale and shift per channel."""

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd


def fold(convolution: _ConvNd, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of the one convolution that equals ``norm(convolution(x))`` in evaluation mode.

    The modules do not change, and gradients flow. The arithmetic is done in float32 or higher; the results have the
    convolution's dtype and device.

    Args:
        convolution: an ordinary or transposed convolution of any dimension and group count, with or without bias.
        norm: norm over the convolution's output channels, in either mode.

    Returns:
        weight, shaped as the convolution's, and bias (out channels,).

    Raises:
        ValueError: the norm has no running statistics, or another number of channels than the convolution's output.
    """
    if norm.num_features != convolution.out_channels:
        raise ValueError(f"norm has {norm.num_features} channels, but the convolution has {convolution.out_channels}")
    scale, shift = scale_and_shift(norm, convolution.bias)
    weight = convolution.weight.to(scale.dtype)
    if convolution.transposed:  # (in, out / groups, ...): the groups lie along the input channels
        by_group = weight.unflatten(0, (convolution.groups, -1))
        folded = (by_group * scale.reshape(convolution.groups, 1, -1, *(1,) * (weight.dim() - 2))).flatten(0, 1)
    else:
        folded = weight * scale.reshape(-1, *(1,) * (weight.dim() - 1))
    return folded.to(convolution.weight.dtype), shift.to(convolution.weight.dtype)


def scale_and_shift(norm: _BatchNorm, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return (C,) scale and shift such that ``norm(x + bias) = scale * x + shift`` in evaluation mode.

    scale = gamma / sqrt(variance + eps), shift = beta + (bias - mean) * scale (Ioffe and Szegedy 2015,
    https://arxiv.org/abs/1502.03167, algorithm 2). Both are float32 or higher.

    Raises:
        ValueError: the norm has no running statistics.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("the norm has no running statistics to fold; build it with track_running_stats=True")
    precise = torch.promote_types(norm.running_var.dtype, torch.float32)
    scale = torch.rsqrt(norm.running_var.to(precise) + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.to(precise)
    offset = -norm.running_mean.to(precise) if bias is None else bias.to(precise) - norm.running_mean.to(precise)
    shift = offset * scale
    return scale, shift if norm.bias is None else shift + norm.bias.to(precise)
