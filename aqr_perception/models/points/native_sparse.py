# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sparse convolution by compiled kernels, for inference on CPUs: neighbour tables and a blocked product.

A neighbour table (M, offsets) int32 lists the input site of each kernel offset for each output site, -1 without one. It
holds the pairs of a rulebook by output instead of by offset, so the sums of a block of outputs stay in the processor's
cache until they are complete, and no pair is sorted, gathered or scattered.
"""

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from aqr_perception.models.ops.native_library import is_usable, native_library

_SOURCE = Path(__file__).with_name("sparse_convolution.cpp")
_LANES = 16
_MOST_KEYS = 2**31
"""Largest number of cells of an output grid: one bit each, in at most 256 MiB."""

Sizes = Sequence[int]


def available() -> bool:
    """Return whether the kernels can be used here; the first call compiles them if need be."""
    return is_usable(_SOURCE, _is_right)


def supports(features: Tensor, kernel: Tensor) -> bool:
    """Return whether `convolve` accepts (N, in) features and a kernel (offsets, in, out)."""
    return (
        features.device.type == kernel.device.type == "cpu"
        and features.dtype == kernel.dtype == torch.float32
        and kernel.shape[2] % _LANES == 0
        and available()
    )


def neighbours(keys: Tensor, grid: Sizes) -> Tensor:
    """Return the table (N, 27) of a 3x3x3 convolution whose outputs are its inputs.

    Args:
        keys: (N,) int64, see `Sites`.
        grid: depth, height, width, without the extra cells.
    """
    return _neighbours(_library(), keys, grid)


def strided(
    keys: Tensor, batch_size: int, grid: Sizes, out_grid: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes
) -> tuple[Tensor, Tensor] | None:
    """Return the keys (M,) of the output sites of a convolution, and its table (M, offsets); None for a huge grid."""
    extended = [size + 1 for size in out_grid]
    words = -(-batch_size * math.prod(extended) // 64)
    if words * 64 > _MOST_KEYS:
        return None
    keys, bits, ranks = keys.contiguous(), torch.zeros(words, dtype=torch.int64), torch.empty(words, dtype=torch.int32)
    shapes = [
        (ctypes.c_int64 * 3)(*sizes) for sizes in ([size + 1 for size in grid], extended, kernel, stride, padding)
    ]
    common = (_pointer(keys), ctypes.c_int64(len(keys)), *shapes, _pointer(bits), _pointer(ranks))
    mark = _library().aqr_mark
    mark.restype = ctypes.c_int64
    found: int = mark(*common, ctypes.c_int64(words))
    out_keys = torch.empty(found, dtype=torch.int64)
    table = torch.full((found, math.prod(kernel)), -1, dtype=torch.int32)
    _library().aqr_connect(*common, ctypes.c_int64(words), _pointer(out_keys), _pointer(table))
    return out_keys, table


def convolve(features: Tensor, table: Tensor, kernel: Tensor, bias: Tensor, residual: Tensor | None) -> Tensor:
    """Return relu(convolution + bias + residual), (M, out).

    Args:
        features: (N, in) float32.
        table: (M, offsets).
        kernel: (offsets, in, out) float32, with ``out`` divisible by 16.
        bias: (out,).
        residual: (M, out).
    """
    return _convolve(_library(), features, table, kernel, bias, residual)


def _library() -> ctypes.CDLL:
    library = native_library(_SOURCE, _is_right)
    assert library is not None  # callers ask `available` first
    return library


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _neighbours(library: ctypes.CDLL, keys: Tensor, grid: Sizes) -> Tensor:
    keys = keys.contiguous()
    table = torch.empty(len(keys), 27, dtype=torch.int32)
    height, width = grid[1] + 1, grid[2] + 1
    sizes = map(ctypes.c_int64, (len(keys), height, width))
    library.aqr_neighbours(_pointer(keys), *sizes, _pointer(table), ctypes.c_int(torch.get_num_threads()))
    return table


def _convolve(
    library: ctypes.CDLL, features: Tensor, table: Tensor, kernel: Tensor, bias: Tensor, residual: Tensor | None
) -> Tensor:
    # Names keep the tensors alive during the call.
    features, kernel, bias = features.contiguous(), kernel.contiguous(), bias.float().contiguous()
    added = None if residual is None else residual.float().contiguous()
    offsets, inputs, columns = kernel.shape
    outputs = features.new_empty(len(table), columns)
    library.aqr_convolve(
        *map(_pointer, (features, table, kernel, bias, added, outputs)),
        ctypes.c_int64(len(table)),
        *map(ctypes.c_int, (offsets, inputs, columns, torch.get_num_threads())),
    )
    return outputs


def _is_right(library: ctypes.CDLL) -> bool:
    """Compare the kernels with torch on a few cells; a compiler that is at odds with the CPU shows here."""
    keys = torch.tensor([0, 1, 5, 9, 20])
    table = _neighbours(library, keys, (2, 3, 3))
    generator = torch.Generator().manual_seed(0)
    features, kernel = torch.randn(5, 5, generator=generator), torch.randn(27, 5, 112, generator=generator)
    bias, residual = torch.randn(112, generator=generator), torch.randn(5, 112, generator=generator)
    gathered = torch.where((table >= 0)[..., None], features[table.clamp(min=0).long()], 0.0)
    expected = (torch.einsum("nki,kio->no", gathered, kernel) + bias + residual).relu()
    found = _convolve(library, features, table, kernel, bias, residual)
    centred = torch.equal(table[:, 13].long(), torch.arange(5))
    return centred and bool(torch.isclose(found, expected, atol=1e-4, rtol=1e-4).all())
