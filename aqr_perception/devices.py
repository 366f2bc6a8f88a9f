# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Choice of the device and the number format that a model runs with."""

import time
from functools import cache
from typing import Literal, NamedTuple, get_args

import torch

Precision = Literal["auto", "fp32", "fp16", "bf16"]


_CHANNELS_FOR_HALF = 192
"""Channels from which on a CPU's decoder gains from bf16; below, casts of small tensors cost more than they save."""


class DeviceError(ValueError):
    """The device or precision is unknown or unavailable. The message names the valid ones."""


def choose_device(name: str) -> torch.device:
    """Return the device named ``auto`` (CUDA if available, otherwise the CPU), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        DeviceError: the name is unknown, or the machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"model.device is {name!r}, but must be auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"model.device is {name!r}, but PyTorch sees {torch.cuda.device_count()} CUDA devices; use cpu or auto"
        )
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"model.device is {name!r}, but must be auto, cpu, cuda or cuda:N")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the number format of convolutions and matrix products.

    ``auto`` selects the fastest safe format. On CUDA: bf16 if the GPU supports it, otherwise fp16. On a CPU: bf16 if
    the processor multiplies it natively (AMX or AVX-512 BF16) and a measured product is faster than in fp32, otherwise
    fp32. Emulated bf16 is hundreds of times slower, and Xeons without AMX take twice as long in bf16 as in fp32.

    Raises:
        DeviceError: the name is unknown, or it is ``fp16`` and the device is a CPU.
    """
    if name not in get_args(Precision):
        raise DeviceError(f"model.precision is {name!r}, but must be one of {', '.join(get_args(Precision))}")
    if name == "fp16" and device.type == "cpu":
        raise DeviceError("model.precision is 'fp16', which needs a CUDA device; on a CPU use auto, bf16 or fp32")
    if name != "auto":
        return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native and _bf16_is_faster() else torch.float32


def format_name(dtype: torch.dtype) -> str:
    """Return the name of a number format without "torch."."""
    return str(dtype).removeprefix("torch.")


class NumberFormats(NamedTuple):
    """Number formats of a model's convolutions and matrix products.

    Attributes:
        branches: of the image and the point branch with their proposals.
        decoder: of everything after them.
    """

    branches: torch.dtype
    decoder: torch.dtype

    def __str__(self) -> str:
        branches, decoder = map(format_name, self)
        return branches if branches == decoder else f"{branches} (decoder {decoder})"


def choose_formats(name: str, device: torch.device, decoder_channels: int) -> NumberFormats:
    """Return the number formats of a model; see `choose_precision`.

    With ``auto``, a small decoder computes in fp32 on a CPU, whatever the branches do.

    Args:
        name: auto, fp32, fp16 or bf16.
        device: where the model runs.
        decoder_channels: channels of the decoder's queries.

    Raises:
        DeviceError: see `choose_precision`.
    """
    branches = choose_precision(name, device)
    small = name == "auto" and device.type == "cpu" and decoder_channels < _CHANNELS_FOR_HALF
    return NumberFormats(branches, torch.float32 if small else branches)


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return the context in which products compute in a number format; without effect for fp32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


_SIZE, _REPEATS = 256, 15
"""Edge length of the matrices that are multiplied to compare formats, and number of products: 10 ms in all."""

_WORTHWHILE = 0.8
"""Ratio of times below which bf16 is worth its rounding errors."""


@cache
def _bf16_is_faster() -> bool:
    """Return whether this CPU multiplies bf16 matrices faster than fp32 ones; measured once."""
    formats = (torch.float32, torch.bfloat16)
    # Shortest times, because other processes only ever make a product slower.
    shortest = dict.fromkeys(formats, float("inf"))
    matrices = {dtype: torch.ones(_SIZE, _SIZE, dtype=dtype) for dtype in formats}
    for _ in range(_REPEATS):
        for dtype, matrix in matrices.items():
            start = time.perf_counter()
            torch.mm(matrix, matrix)
            shortest[dtype] = min(shortest[dtype], time.perf_counter() - start)
    return shortest[torch.bfloat16] < _WORTHWHILE * shortest[torch.float32]
