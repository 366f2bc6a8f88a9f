# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Correction of plain attention for a window bias by a compiled kernel, for inference in float32 on CPUs.

It visits the tokens of each query's window only; the tiles of the torch implementation compute several times as many.
"""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from aqr_perception.models.aqr.window_bias import WindowBias, WindowList
from aqr_perception.models.ops.native_library import is_usable, native_library

_SOURCE = Path(__file__).with_name("window_correction.cpp")


def supports(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return whether `correct` accepts these tensors, and the kernel can be used here."""
    tensors = (query, key, value)
    usable = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
    return usable and is_usable(_SOURCE, _is_right)


def correct(
    output: Tensor, share: Tensor, total: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: WindowBias
) -> tuple[Tensor, Tensor]:
    """Return the unnormalised output (B, heads, Q, d) and shares (B, heads, Q, S) with the bias.

    Args:
        output, share, total: output, shares of the segments and log-sum-exp (B, heads, Q) of attention without bias.
        query: (B, heads, Q, d).
        key, value: (B, heads, K, d).
    """
    library = native_library(_SOURCE, _is_right)
    assert library is not None  # callers ask `supports` first
    return _correct(library, output, share, total, query, key, value, bias.windows)


def _correct(
    library: ctypes.CDLL,
    output: Tensor,
    share: Tensor,
    total: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    listed: WindowList,
) -> tuple[Tensor, Tensor]:
    batch, heads, count, width = query.shape
    # By token and head, as after the projections; only the output and the shares need a copy.
    scaled, keys, values = ((query * width**-0.5).transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    inputs = [tensor.contiguous() for tensor in (scaled, keys, values, total.transpose(1, 2))]
    results = [tensor.transpose(1, 2).clone(memory_format=torch.contiguous_format) for tensor in (output, share)]
    windows = listed.windows
    if results[1].shape[-1] == 1:  # all segments in one
        windows = windows.clone()
        windows[:, -1] = 0
    tensors = (*inputs, listed.starts, windows, listed.growth, *results)
    library.aqr_correct(
        *(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors),
        ctypes.c_int64(batch * count),
        *map(ctypes.c_int, (heads, width, results[1].shape[-1], torch.get_num_threads())),
    )
    corrected, shares = (tensor.transpose(1, 2) for tensor in results)
    return corrected, shares


def _is_right(library: ctypes.CDLL) -> bool:
    """Compare the kernel with torch on a small problem; a compiler that is at odds with the CPU shows here."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, count, 16, generator=generator) for count in (3, 12, 12))
    windows = torch.tensor([[0, 3, 0, 2, 1, 3, 0], [6, 3, 0, 1, 0, 2, 1]])  # tokens 1, 2, 4, 5 and 6, 7
    listed = WindowList(torch.tensor([0, 1, 1, 2]), windows, torch.tensor([0.5, -0.25]))
    growth = torch.zeros(3, 12)
    growth[0, [1, 2, 4, 5]], growth[2, [6, 7]] = 0.5, -0.25
    extra = growth * (query @ key.transpose(-1, -2) / 4).exp()
    zeros = torch.zeros_like(query)
    output, share = _correct(library, zeros, zeros[..., :2], zeros[..., 0], query, key, value, listed)
    by_segment = torch.stack((extra[..., :6].sum(-1), extra[..., 6:].sum(-1)), dim=-1)
    pairs = ((output, extra @ value), (share, by_segment))
    return all(bool(torch.isclose(found, expected, atol=1e-4, rtol=1e-4).all()) for found, expected in pairs)
