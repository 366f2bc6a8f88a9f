# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fused convolution, batch norm, residual and ReLU for inference."""

from collections.abc import Callable, Sequence
from enum import Enum
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.ops.derived_tensors import DerivedTensors
from aqr_perception.models.ops.folding import fold

_folded = DerivedTensors()


def convolve(
    features: Tensor,
    convolution: nn.Conv2d,
    norm: nn.BatchNorm2d | None = None,
    *,
    relu: bool = False,
    relu6: bool = False,
    residual: Tensor | None = None,
    same: bool = False,
) -> Tensor:
    """Return relu(norm(convolution(features)) + residual) as (N, C, H, W); norm, residual and ReLU are optional.

    `relu6` also limits the result to 6. `same` pads as TensorFlow's "same": the result has the size of the features
    divided by the stride, rounded up, and an odd row or column of zeros is at the bottom or on the right. The
    convolution then has no padding of its own.

    With gradients, or with the norm in training mode, the modules run unchanged. Otherwise the norm is folded into
    the convolution's weights, and **the residual is overwritten** with the result: on CPUs, the page faults of a new
    feature map cost more time than the arithmetic of a 1x1 convolution.
    """
    if torch.is_grad_enabled() or (norm is not None and norm.training):
        _folded.drop(convolution)
        outputs: Tensor = convolution(_padded(features, convolution) if same else features)
        if norm is not None:
            outputs = norm(outputs)
        if residual is not None:
            outputs = outputs + residual
        return _activated(outputs, relu, relu6)

    padding = _Padding.NONE
    if same:
        padding = _inner_padding(features, convolution)
        features = features if padding is not _Padding.NONE else _padded(features, convolution)
    dtype = _computing_dtype(features, convolution)
    if _can_fuse(features, convolution, dtype, residual) and not (relu6 and residual is not None):  # no such operation
        features = features.to(dtype)
        weight, bias = _folded_weights(convolution, norm, dtype, padding, packed_for=features)
        geometry = _geometry(convolution, padding)
        if relu6:
            return _convolve_fused(features, geometry, weight, bias, "hardtanh", None, [0.0, 6.0])
        return _convolve_fused(features, geometry, weight, bias, "relu" if relu else None, residual)
    weight, bias = _folded_weights(convolution, norm, dtype, padding)
    if padding is _Padding.NONE:
        outputs = convolution._conv_forward(features, weight, bias)  # supports every padding mode
    else:
        inner, stride, dilation, groups = _geometry(convolution, padding)
        outputs = F.conv2d(features, weight, bias, stride, inner, dilation, groups)
    if residual is not None:
        outputs = residual.add_(outputs) if residual.dtype == outputs.dtype else outputs.add_(residual)
    return _activated(outputs, relu, relu6)


class _Padding(Enum):
    """How a convolution pads by itself.

    Attributes:
        NONE: as its module says.
        EVEN: half of the kernel on all sides.
        WIDENED: as EVEN, with a row and a column of zeros before the kernel's first ones: "same" padding of stride 2
            without a copy of the map, which costs several times as much as a depthwise convolution.
    """

    NONE = 0
    EVEN = 1
    WIDENED = 2


def _inner_padding(features: Tensor, convolution: nn.Conv2d) -> _Padding:
    """Return the padding that equals "same" for these features; NONE if there is none."""
    (rows, columns), strides = convolution.kernel_size, set(convolution.stride)
    if rows % 2 == 0 or columns != rows or set(convolution.dilation) != {1}:
        return _Padding.NONE
    if strides == {1} or rows == columns == 1:
        return _Padding.EVEN
    even = all(size % 2 == 0 for size in features.shape[2:])
    return _Padding.WIDENED if strides == {2} and even else _Padding.NONE


def _padded(features: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Return features with TensorFlow's "same" padding."""
    height, width = (
        max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
        for size, kernel, stride, dilation in zip(
            features.shape[2:], convolution.kernel_size, convolution.stride, convolution.dilation, strict=True
        )
    )
    return F.pad(features, (width // 2, width - width // 2, height // 2, height - height // 2))


def _activated(outputs: Tensor, relu: bool, relu6: bool) -> Tensor:
    if relu6:
        return F.relu6(outputs, inplace=True)
    return F.relu(outputs, inplace=True) if relu else outputs


def _computing_dtype(features: Tensor, convolution: nn.Conv2d) -> torch.dtype:
    """Return the number format in which autocast computes, or else that of the weights."""
    device = features.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else convolution.weight.dtype


def _folded_weights(
    convolution: nn.Conv2d,
    norm: nn.BatchNorm2d | None,
    dtype: torch.dtype,
    padding: _Padding,
    packed_for: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return the weight, channels last in memory, and the bias of convolution and norm.

    They are cast once, because autocast would cast them in every frame.

    Args:
        packed_for: features for which oneDNN chooses the weight's layout in memory, which it would otherwise change in
            every call; such a weight fits only its fused operations.
    """

    def compute() -> tuple[Tensor, ...]:
        weight, bias = (convolution.weight, convolution.bias) if norm is None else fold(convolution, norm)
        if padding is _Padding.WIDENED:
            weight = F.pad(weight, (1, 0, 1, 0))
        weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        reorder: Callable[..., Tensor] | None = getattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", None)
        if packed_for is not None and reorder is not None:
            weight = reorder(weight.detach().to_mkldnn(), *_geometry(convolution, padding), list(packed_for.shape))
        return (weight,) if bias is None else (weight, bias.to(dtype))

    sources = (convolution.weight, convolution.bias)
    of_norm = () if norm is None else (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    key = (dtype, padding, packed_for is not None)
    weight, *bias = _folded.get(convolution, (*sources, *of_norm), compute, key)
    return weight, bias[0] if bias else None


def _geometry(convolution: nn.Conv2d, padding: _Padding) -> tuple[Any, Any, Any, int]:
    rows, columns = convolution.kernel_size
    inner = convolution.padding if padding is _Padding.NONE else (rows // 2, columns // 2)
    return inner, convolution.stride, convolution.dilation, convolution.groups


def _can_fuse(features: Tensor, convolution: nn.Conv2d, dtype: torch.dtype, residual: Tensor | None) -> bool:
    # The fused operations are undocumented: a release or a build of PyTorch may lack them.
    return (
        features.device.type == "cpu"
        and convolution.weight.dtype == torch.float32
        and (features.dtype == torch.float32 or features.dtype == dtype)
        and (dtype == torch.float32 or (dtype == torch.bfloat16 and _supports_bf16()))
        and (residual is None or residual.dtype == dtype)
        and features.numel() > 0
        and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
        and bool(torch.backends.mkldnn.enabled)
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
    )


@cache
def _supports_bf16() -> bool:
    """Return whether oneDNN has bf16 kernels for this CPU (from AVX-512 on); it refuses bf16 otherwise."""
    operations = torch.ops.mkldnn
    return hasattr(operations, "_is_mkldnn_bf16_supported") and bool(operations._is_mkldnn_bf16_supported())


def _convolve_fused(
    features: Tensor,
    geometry: tuple[Any, Any, Any, int],
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    residual: Tensor | None,
    limits: Sequence[float] = (),
) -> Tensor:
    """Convolve with oneDNN's fused operations, which torch.compile emits on CPUs."""
    arguments = (weight, bias, *geometry)
    onednn = torch.ops.mkldnn
    outputs: Tensor
    if residual is None:
        outputs = onednn._convolution_pointwise(features, *arguments, activation or "none", list(limits), "")
    else:
        outputs = onednn._convolution_pointwise_.binary(residual, features, *arguments, "add", 1.0, activation, [], "")
    return outputs
