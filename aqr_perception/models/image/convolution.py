"""Convolution, batch norm, residual and ReLU as one operation wherever no gradient is asked for."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.folding import fold


@dataclass(frozen=True)
class _Folded:
    """A convolution's weight and bias with its norm folded in, and the tensors that they were made from."""

    weight: Tensor
    bias: Tensor | None
    sources: tuple[Tensor, ...]
    versions: tuple[int, ...]


# Weak, so that a model that is replaced at run time takes its folded weights along.
_folded: WeakKeyDictionary[nn.Module, _Folded] = WeakKeyDictionary()


def convolve(
    features: Tensor,
    convolution: nn.Conv2d,
    norm: nn.BatchNorm2d | None = None,
    *,
    relu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """Return relu(norm(convolution(features)) + residual), each part where asked for; (N, C, H, W).

    With gradients, or with the norm in training mode, this is exactly that. Without, the norm is folded into the
    convolution's weights, once per change of any of them, and **the residual's memory is overwritten** with the result:
    on CPUs a fresh feature map costs more in page faults than a 1x1 convolution does in arithmetic.
    """
    if torch.is_grad_enabled() or (norm is not None and norm.training):
        outputs = convolution(features)
        if norm is not None:
            outputs = norm(outputs)
        if residual is not None:
            outputs = outputs + residual
        return F.relu(outputs, inplace=True) if relu else outputs

    folded = _folded_weights(convolution, norm)
    operation = _fused if _can_fuse(features) else _plain
    return operation(features, convolution, folded, relu, residual)


def _plain(features: Tensor, convolution: nn.Conv2d, folded: _Folded, relu: bool, residual: Tensor | None) -> Tensor:
    stride, padding, dilation = convolution.stride, convolution.padding, convolution.dilation
    outputs = F.conv2d(features, folded.weight, folded.bias, stride, padding, dilation, convolution.groups)
    if residual is not None:
        outputs = residual.add_(outputs) if residual.dtype == outputs.dtype else outputs.add_(residual)
    return outputs.relu_() if relu else outputs


def _fused(features: Tensor, convolution: nn.Conv2d, folded: _Folded, relu: bool, residual: Tensor | None) -> Tensor:
    """oneDNN's fused operations, the ones that torch.compile emits on CPUs."""
    shape = (convolution.padding, convolution.stride, convolution.dilation, convolution.groups)
    activation = "relu" if relu else "none"
    onednn = torch.ops.mkldnn
    if residual is None:
        return onednn._convolution_pointwise(features, folded.weight, folded.bias, *shape, activation, [], "")
    return onednn._convolution_pointwise_.binary(
        residual, features, folded.weight, folded.bias, *shape, "add", 1.0, "relu" if relu else None, [], ""
    )


def _can_fuse(features: Tensor) -> bool:
    return (
        features.device.type == "cpu"
        and features.dtype == torch.float32
        and bool(torch.backends.mkldnn.enabled)
        and _has_fused_operations()
        and not torch.is_autocast_enabled("cpu")
    )


def _has_fused_operations() -> bool:
    # Undocumented operations: where a release or a build lacks them, the plain path gives the same result.
    return hasattr(torch.ops.mkldnn, "_convolution_pointwise") and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")


def _folded_weights(convolution: nn.Conv2d, norm: nn.BatchNorm2d | None) -> _Folded:
    sources = tuple(tensor for tensor in _sources(convolution, norm) if tensor is not None)
    versions = tuple(_version(tensor) for tensor in sources)
    folded = _folded.get(convolution)
    if folded is None or versions != folded.versions or not _same_memory(sources, folded.sources):
        weight, bias = (convolution.weight, convolution.bias) if norm is None else fold(convolution, norm)
        weight = weight.detach().contiguous(memory_format=torch.channels_last)
        # The sources are kept so that their memory cannot be given to other weights while it serves as the cache's key.
        kept = tuple(tensor.detach() for tensor in sources)
        folded = _Folded(weight, None if bias is None else bias.detach(), kept, versions)
        _folded[convolution] = folded
    return folded


def _sources(convolution: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor | None, ...]:
    if norm is None:
        return convolution.weight, convolution.bias
    return convolution.weight, convolution.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var


def _version(tensor: Tensor) -> int:
    # Tensors made under inference_mode cannot be changed in place outside it, and count no versions.
    return -1 if tensor.is_inference() else tensor._version


def _same_memory(left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> bool:
    return all(a.data_ptr() == b.data_ptr() and a.dtype == b.dtype for a, b in zip(left, right, strict=True))
