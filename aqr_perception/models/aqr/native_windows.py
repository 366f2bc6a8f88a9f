# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The router's attention inside single windows by a compiled kernel, for inference in float32 on CPUs.

It reads each window's tokens where they are; the torch implementation copies them.
"""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from aqr_perception.models.aqr.gathered_windows import GatheredWindows
from aqr_perception.models.ops.native_library import is_usable, native_library

_SOURCE = Path(__file__).with_name("window_attention.cpp")


def supports(*tensors: Tensor) -> bool:
    """Return whether `attend` accepts these tensors, and the kernel can be used here."""
    needs_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    usable = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
    return usable and not needs_gradient and is_usable(_SOURCE, _is_right)


def attend(projected: Tensor, keys: Tensor, values: Tensor, windows: GatheredWindows) -> tuple[Tensor, Tensor]:
    """Return each window's attention-weighted sum of values (P, heads, C) and log-sum-exp of its scores (P, heads).

    Args:
        projected: (queries, heads, C), scaled.
        keys, values: (tokens, C).
        windows: P windows.
    """
    library = native_library(_SOURCE, _is_right)
    assert library is not None  # callers ask `supports` first
    return _attend(library, projected, keys, values, windows)


def _attend(
    library: ctypes.CDLL, projected: Tensor, keys: Tensor, values: Tensor, windows: GatheredWindows
) -> tuple[Tensor, Tensor]:
    _, heads, channels = projected.shape
    count, width = windows.tokens.shape
    sums, log_sum_exp = projected.new_empty(count, heads, channels), projected.new_empty(count, heads)
    tensors = [tensor.contiguous() for tensor in (projected, keys, values, *windows)]
    library.aqr_attend_windows(
        *(ctypes.c_void_p(tensor.data_ptr()) for tensor in (*tensors, sums, log_sum_exp)),
        *map(ctypes.c_int64, (count, width)),
        *map(ctypes.c_int, (heads, channels, torch.get_num_threads())),
    )
    return sums, log_sum_exp


def _is_right(library: ctypes.CDLL) -> bool:
    """Compare the kernel with torch on a small problem; a compiler that is at odds with the CPU shows here."""
    generator = torch.Generator().manual_seed(0)
    projected = torch.randn(3, 2, 40, generator=generator)
    keys, values = (torch.randn(12, 40, generator=generator) for _ in range(2))
    tokens = torch.tensor([[1, 5, 2], [7, 0, 11]])
    inside = torch.tensor([[True, True, False], [True, True, True]])
    query = torch.tensor([2, 0])
    scores = torch.einsum("phc,pwc->phw", projected[query], keys[tokens]).masked_fill(~inside[:, None], float("-inf"))
    expected = (scores.softmax(-1) @ values[tokens], scores.logsumexp(-1))
    found = _attend(library, projected, keys, values, GatheredWindows(query, tokens, inside))
    return all(bool(torch.isclose(*pair, atol=1e-4, rtol=1e-4).all()) for pair in zip(found, expected, strict=True))
