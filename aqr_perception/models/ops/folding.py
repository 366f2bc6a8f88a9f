"""A batch norm in evaluation mode is one scale and shift a channel: it folds into the convolution before it."""

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd


def fold(convolution: _ConvNd, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return the weight and bias with which the convolution alone computes ``norm(convolution(x))`` of evaluation mode.

    Nothing is cached and neither module is changed. The arithmetic is done in float32 at least, the results have the
    convolution's dtype and device, and gradients flow.

    Args:
        convolution: a (transposed) convolution of any dimension and group count, with or without bias.
        norm: over the convolution's output channels; its mode does not matter.

    Returns:
        weight, shaped as the convolution's, and bias (out channels,).

    Raises:
        ValueError: the norm keeps no running statistics, or is not over the convolution's output channels.
    """
    if norm.num_features != convolution.out_channels:
        raise ValueError(f"norm has {norm.num_features} channels, but must have {convolution.out_channels}")
    scale, shift = scale_and_shift(norm, convolution.bias)
    weight = convolution.weight.to(scale.dtype)
    if convolution.transposed:  # (in, out / groups, ...): the groups lie along the input channels
        by_group = weight.unflatten(0, (convolution.groups, -1))
        folded = (by_group * scale.reshape(convolution.groups, 1, -1, *(1,) * (weight.dim() - 2))).flatten(0, 1)
    else:
        folded = weight * scale.reshape(-1, *(1,) * (weight.dim() - 1))
    return folded.to(convolution.weight.dtype), shift.to(convolution.weight.dtype)


def scale_and_shift(norm: _BatchNorm, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return (C,) scale and shift, float32 at least, so that ``norm(x + bias) = scale * x + shift`` in evaluation mode.

    scale = gamma / sqrt(variance + eps), shift = beta + (bias - mean) * scale (Ioffe and Szegedy 2015,
    https://arxiv.org/abs/1502.03167, algorithm 2).

    Raises:
        ValueError: the norm keeps no running statistics.
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


@dataclass(frozen=True)
class _Entry:
    derived: tuple[Tensor, ...]
    sources: tuple[Tensor, ...]
    versions: tuple[int, ...]


class DerivedTensors:
    """Tensors computed from modules' parameters and buffers, computed again once any of these has changed.

    A change is a write in place (an optimiser's step, `load_state_dict`) or other memory, dtype or device (`to`).
    Writes through ``.data`` go unnoticed, as they do by autograd; so do those of fused optimisers and the running
    statistics of a batch norm in training: see `drop`.
    """

    def __init__(self) -> None:
        # Weak, so that a model that is replaced at run time takes its derived tensors along.
        self._entries: WeakKeyDictionary[nn.Module, _Entry] = WeakKeyDictionary()

    def get(
        self, module: nn.Module, sources: tuple[Tensor | None, ...], compute: Callable[[], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """Return ``compute()``, detached, or what it gave for this module as long as the sources are the same."""
        present = tuple(source.detach() for source in sources if source is not None)
        versions = tuple(_version(source) for source in present)
        entry = self._entries.get(module)
        if entry is None or entry.versions != versions or not _same_memory(entry.sources, present):
            # The sources are kept: their memory cannot be given to other weights as long as it identifies them.
            derived = tuple(tensor.detach() for tensor in compute())
            entry = self._entries[module] = _Entry(derived, present, versions)
        return entry.derived

    def drop(self, module: nn.Module) -> None:
        """Forget a module's tensors: it trains, and fused optimisers and batch norms write without raising versions."""
        self._entries.pop(module, None)


def _version(tensor: Tensor) -> int:
    # Tensors made under inference_mode cannot be written outside it, and count no versions.
    return -1 if tensor.is_inference() else tensor._version


def _same_memory(left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> bool:
    return len(left) == len(right) and all(
        a.data_ptr() == b.data_ptr() and a.dtype == b.dtype and a.device == b.device
        for a, b in zip(left, right, strict=True)
    )
