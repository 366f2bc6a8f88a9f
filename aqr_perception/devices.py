"""On which device, and in which number format, a model runs."""

from typing import Literal, get_args

import torch

Precision = Literal["auto", "fp32", "fp16", "bf16"]


class DeviceError(ValueError):
    """The device or precision cannot be had on this machine; the message says which can."""


def choose_device(name: str) -> torch.device:
    """Return the device called ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        DeviceError: there is no such device here.
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

    ``auto`` takes the fastest safe one: on CUDA bf16 where the card has it, otherwise fp16; on a CPU bf16 where the
    processor multiplies it natively (AMX or AVX-512 BF16; emulated, it is hundreds of times slower), otherwise fp32.

    Raises:
        DeviceError: the name is unknown, or fp16 was asked for on a CPU.
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
    return torch.bfloat16 if native else torch.float32
