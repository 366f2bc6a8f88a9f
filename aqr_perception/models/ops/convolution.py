"""Fused convolution, batch norm, residual and ReLU for inference."""

from collections.abc import Sequence

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
) -> Tensor:
    """Return relu(norm(convolution(features)) + residual) as (N, C, H, W); norm, residual and ReLU are optional.

    `relu6` also limits the result to 6.

    With gradients, or with the norm in training mode, the modules run unchanged. Otherwise the norm is folded into
    the convolution's weights, and **the residual is overwritten** with the result: on CPUs, the page faults of a new
    feature map cost more time than the arithmetic of a 1x1 convolution.
    """
    if torch.is_grad_enabled() or (norm is not None and norm.training):
        _folded.drop(convolution)
        outputs: Tensor = convolution(features)
        if norm is not None:
            outputs = norm(outputs)
        if residual is not None:
            outputs = outputs + residual
        return _activated(outputs, relu, relu6)

    weight, bias = _folded_weights(convolution, norm)
    if _can_fuse(features, convolution) and not (relu6 and residual is not None):  # no such operation exists
        if relu6:
            return _convolve_fused(features, convolution, weight, bias, "hardtanh", None, [0.0, 6.0])
        return _convolve_fused(features, convolution, weight, bias, "relu" if relu else None, residual)
    outputs = convolution._conv_forward(features, weight, bias)  # supports every padding mode
    if residual is not None:
        outputs = residual.add_(outputs) if residual.dtype == outputs.dtype else outputs.add_(residual)
    return _activated(outputs, relu, relu6)


def _activated(outputs: Tensor, relu: bool, relu6: bool) -> Tensor:
    if relu6:
        return F.relu6(outputs, inplace=True)
    return F.relu(outputs, inplace=True) if relu else outputs


def _folded_weights(convolution: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor | None]:
    """Return the weight, channels last in memory, and the bias of convolution and norm."""

    def compute() -> tuple[Tensor, ...]:
        weight, bias = (convolution.weight, convolution.bias) if norm is None else fold(convolution, norm)
        weight = weight.contiguous(memory_format=torch.channels_last)
        return (weight,) if bias is None else (weight, bias)

    sources = (convolution.weight, convolution.bias)
    of_norm = () if norm is None else (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    weight, *bias = _folded.get(convolution, (*sources, *of_norm), compute)
    return weight, bias[0] if bias else None


def _can_fuse(features: Tensor, convolution: nn.Conv2d) -> bool:
    # The fused operations are undocumented: a release or a build of PyTorch may lack them.
    return (
        features.device.type == "cpu"
        and features.dtype == convolution.weight.dtype == torch.float32
        and features.numel() > 0
        and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
        and bool(torch.backends.mkldnn.enabled)
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
        and not torch.is_autocast_enabled("cpu")
    )


def _convolve_fused(
    features: Tensor,
    convolution: nn.Conv2d,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    residual: Tensor | None,
    limits: Sequence[float] = (),
) -> Tensor:
    """Convolve with oneDNN's fused operations, which torch.compile emits on CPUs."""
    arguments = (weight, bias, convolution.padding, convolution.stride, convolution.dilation, convolution.groups)
    onednn = torch.ops.mkldnn
    outputs: Tensor
    if residual is None:
        outputs = onednn._convolution_pointwise(features, *arguments, activation or "none", list(limits), "")
    else:
        outputs = onednn._convolution_pointwise_.binary(residual, features, *arguments, "add", 1.0, activation, [], "")
    return outputs
