# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rates of matrix products and copies on this machine, and their amounts in each stage of a frame."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from aqr_perception.devices import format_name

_SIZE = 1024
_COPIED = 64 * 2**20
_REPEATS = 7


@dataclass(frozen=True)
class MachineLimits:
    """Measured limits.

    Attributes:
        gemm_gflops: products of square matrices by number format, in 1e9 operations per second.
        copy_gbytes: copies of a large array, bytes read and written, in 1e9 bytes per second.
        threads: threads of the measurement.
    """

    gemm_gflops: dict[str, float]
    copy_gbytes: float
    threads: int

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    def __str__(self) -> str:
        products = ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in self.gemm_gflops.items())
        return (
            f"limits of this machine, {self.threads} threads: products {products}; copies {self.copy_gbytes:.1f} GB/s"
        )


def measure_limits(device: torch.device, precisions: Sequence[torch.dtype]) -> MachineLimits:
    """Measure the limits of a device with the current number of threads."""
    rates = {}
    for dtype in dict.fromkeys(precisions):
        left, right = (torch.randn(_SIZE, _SIZE, device=device).to(dtype) for _ in range(2))
        rates[format_name(dtype)] = 2 * _SIZE**3 / _seconds(partial(torch.matmul, left, right), device) / 1e9
    source = torch.ones(_COPIED // 4, device=device)
    target = torch.empty_like(source)
    copied = 2 * _COPIED / _seconds(lambda: target.copy_(source), device) / 1e9
    return MachineLimits(rates, copied, torch.get_num_threads())


def _seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    """Return the median time of some work, after a warm-up run."""
    times = []
    for _ in range(_REPEATS + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


@dataclass(frozen=True)
class Amount:
    """Work of one stage.

    Attributes:
        flops: operations of convolutions, matrix products and attention.
        bytes: read and written by all operations, without caches.
    """

    flops: float
    bytes: float


def amount(work: Callable[[], object]) -> Amount:
    """Return the operations and bytes of some work on tensors."""
    counter = FlopCounterMode(display=False, custom_mapping=_fused_operations())
    with torch.no_grad(), _Traffic() as traffic, counter:
        work()
    return Amount(float(counter.get_total_flops()), float(traffic.bytes))


class _Traffic(TorchDispatchMode):
    """Sum of the bytes of inputs and outputs of all operations but views."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, output)) if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return output


def _fused_operations() -> dict[Any, Any]:
    """Return the formulas of fused operations that PyTorch's counter does not know."""

    def convolution(features: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return int(conv_flop_count(list(features), list(weight), list(out_shape)))

    def convolution_add(_: Any, features: Any, weight: Any, *__: Any, out_shape: Any = None, **___: Any) -> int:
        return int(conv_flop_count(list(features), list(weight), list(out_shape)))

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        batch, heads, queries, channels = query
        return int(2 * batch * heads * queries * key[2] * (channels + value[3]))

    known: dict[Any, Any] = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    if hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        known[torch.ops.mkldnn._convolution_pointwise] = convolution
        known[torch.ops.mkldnn._convolution_pointwise_] = convolution_add
    return known
