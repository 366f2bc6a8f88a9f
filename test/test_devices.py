# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Choice of device and number format."""

import pytest
import torch

from aqr_perception import devices
from aqr_perception.devices import DeviceError, NumberFormats, choose_device, choose_formats, choose_precision


def test_an_unavailable_device_is_named_with_the_available_ones() -> None:
    with pytest.raises(DeviceError, match="tpu7"):
        choose_device("tpu7")
    with pytest.raises(DeviceError, match=f"sees {torch.cuda.device_count()} CUDA"):
        choose_device("cuda:99")
    with pytest.raises(DeviceError, match="fp16"):
        choose_precision("fp16", torch.device("cpu"))
    with pytest.raises(DeviceError, match="fp8"):
        choose_precision("fp8", torch.device("cpu"))


@pytest.mark.parametrize(("slowdown", "expected"), [(0.3, torch.bfloat16), (3.0, torch.float32)])
def test_auto_uses_bf16_on_a_cpu_only_where_its_products_are_faster(
    monkeypatch: pytest.MonkeyPatch, slowdown: float, expected: torch.dtype
) -> None:
    now = 0.0
    product = torch.mm

    def timed(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        nonlocal now
        now += slowdown if left.dtype == torch.bfloat16 else 1.0
        return product(left.float(), right.float())

    monkeypatch.setattr(devices.time, "perf_counter", lambda: now)
    monkeypatch.setattr(torch, "mm", timed)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    devices._bf16_is_faster.cache_clear()
    try:
        assert choose_precision("auto", torch.device("cpu")) == expected
    finally:
        devices._bf16_is_faster.cache_clear()


@pytest.mark.parametrize(("channels", "decoder"), [(128, torch.float32), (256, torch.bfloat16)])
def test_auto_leaves_small_decoders_of_a_cpu_in_fp32(
    monkeypatch: pytest.MonkeyPatch, channels: int, decoder: torch.dtype
) -> None:
    monkeypatch.setattr(devices, "choose_precision", lambda name, device: torch.bfloat16)
    cpu = torch.device("cpu")
    assert choose_formats("auto", cpu, channels) == (torch.bfloat16, decoder)
    assert choose_formats("bf16", cpu, channels) == (torch.bfloat16, torch.bfloat16)
    assert choose_formats("auto", torch.device("cuda"), channels) == (torch.bfloat16, torch.bfloat16)


def test_formats_that_differ_are_both_named() -> None:
    assert str(NumberFormats(torch.bfloat16, torch.float32)) == "bfloat16 (decoder float32)"
    assert str(NumberFormats(torch.float32, torch.float32)) == "float32"


def test_auto_never_emulates_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(devices, "_bf16_is_faster", lambda: True)
    assert choose_precision("auto", torch.device("cpu")) == torch.float32
