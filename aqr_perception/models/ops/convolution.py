"""Convolution, batch norm, residual and ReLU as one operation wherever no gradient is asked for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.ops import winograd
from aqr_perception.models.ops.folding import fold


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
        # What trains is about to change, and fused optimisers do not raise versions.
        _cache.pop(convolution, None)
        outputs = convolution(features)
        if norm is not None:
            outputs = norm(outputs)
        if residual is not None:
            outputs = outputs + residual
        return F.relu(outputs, inplace=True) if relu else outputs

    if not _can_fuse(features, convolution):
        weight, bias = _folded_weights(convolution, norm, _channels_last)
        # The module's own way to its operation, with any padding mode.
        outputs = convolution._conv_forward(features, weight, bias)
        return _add(outputs, relu, residual)
    if winograd.pays(convolution, features):
        kernel, bias = _folded_weights(convolution, norm, winograd.transform_kernel)
        return _add(winograd.convolve_3x3(features, kernel, bias, relu and residual is None), relu, residual)
    return _fused(features, convolution, _folded_weights(convolution, norm, _channels_last), relu, residual)


def _add(outputs: Tensor, relu: bool, residual: Tensor | None) -> Tensor:
    if residual is not None:
        outputs = residual.add_(outputs) if residual.dtype == outputs.dtype else outputs.add_(residual)
    return outputs.relu_() if relu else outputs


def _fused(
    features: Tensor,
    convolution: nn.Conv2d,
    weights: tuple[Tensor, Tensor | None],
    relu: bool,
    residual: Tensor | None,
) -> Tensor:
    """oneDNN's fused operations, the ones that torch.compile emits on CPUs."""
    shape = (convolution.padding, convolution.stride, convolution.dilation, convolution.groups)
    onednn = torch.ops.mkldnn
    if residual is None:
        return onednn._convolution_pointwise(features, *weights, *shape, "relu" if relu else "none", [], "")
    activation = "relu" if relu else None
    return onednn._convolution_pointwise_.binary(residual, features, *weights, *shape, "add", 1.0, activation, [], "")


def _can_fuse(features: Tensor, convolution: nn.Conv2d) -> bool:
    # The operations are undocumented: where a release or a build lacks them, the plain path gives the same result.
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


@dataclass(frozen=True)
class _Folded:
    """Weights with the norm folded in, by layout, and the tensors that they were made from.

    The sources are kept so that their memory, which identifies them, cannot be given to other tensors meanwhile.
    """

    sources: tuple[Tensor, ...]
    versions: tuple[int, ...]
    layouts: dict[Callable[[Tensor], Tensor], tuple[Tensor, Tensor | None]] = field(default_factory=dict)

    def is_of(self, sources: tuple[Tensor, ...]) -> bool:
        return len(sources) == len(self.sources) and all(
            tensor.data_ptr() == kept.data_ptr() and tensor.dtype == kept.dtype and _version(tensor) == version
            for tensor, kept, version in zip(sources, self.sources, self.versions, strict=True)
        )


# Weak, so that a model that is replaced at run time takes its folded weights along.
_cache: WeakKeyDictionary[nn.Module, _Folded] = WeakKeyDictionary()


def _folded_weights(
    convolution: nn.Conv2d, norm: nn.BatchNorm2d | None, layout: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias, the weight in the layout that one of the implementations wants."""
    modules = (convolution,) if norm is None else (convolution, norm)
    sources = tuple(tensor for module in modules for tensor in (*module.parameters(), *module.buffers()))
    folded = _cache.get(convolution)
    if folded is None or not folded.is_of(sources):
        folded = _Folded(tuple(tensor.detach() for tensor in sources), tuple(map(_version, sources)))
        _cache[convolution] = folded
    if layout not in folded.layouts:
        weight, bias = (convolution.weight, convolution.bias) if norm is None else fold(convolution, norm)
        folded.layouts[layout] = layout(weight.detach()), None if bias is None else bias.detach()
    return folded.layouts[layout]


def _channels_last(weight: Tensor) -> Tensor:
    return weight.contiguous(memory_format=torch.channels_last)


def _version(tensor: Tensor) -> int:
    # Tensors made under inference_mode cannot be changed in place outside it, and count no versions.
    return -1 if tensor.is_inference() else tensor._version
