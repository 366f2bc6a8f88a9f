# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fused inference equals the plain modules and follows every change of their weights."""

import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from aqr_perception.models.ops.convolution import _folded_weights, _Padding, _supports_bf16, convolve


def pair(
    in_channels: int = 4, out_channels: int = 6, kernel: int = 3, stride: int = 1, bias: bool = False
) -> nn.ModuleList:
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=bias)
    norm = nn.BatchNorm2d(out_channels)
    for tensor in (norm.weight, norm.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5)
    for tensor in (norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    return nn.ModuleList([convolution, norm]).eval()


def reference(features: Tensor, modules: nn.ModuleList, relu: str = "", residual: Tensor | None = None) -> Tensor:
    outputs = modules[1](modules[0](features))
    outputs = outputs if residual is None else outputs + residual
    return {"": outputs, "relu": outputs.relu(), "relu6": outputs.clamp(0, 6)}[relu]


@settings(deadline=None, max_examples=25)
@given(
    kernel=st.sampled_from((1, 3, 7)),
    stride=st.sampled_from((1, 2)),
    bias=st.booleans(),
    relu=st.sampled_from(("", "relu", "relu6")),
    adds=st.booleans(),
    batch=st.integers(0, 2),
    onednn=st.booleans(),
)
def test_inference_equals_the_modules_for_every_combination(
    kernel: int, stride: int, bias: bool, relu: str, adds: bool, batch: int, onednn: bool
) -> None:
    modules = pair(kernel=kernel, stride=stride, bias=bias)
    features = 5 * torch.randn(batch, 4, 9, 11).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=onednn):
        residual = torch.randn_like(modules[0](features)) if adds else None
        expected = reference(features, modules, relu, residual)
        activation = {relu: True} if relu else {}
        found = convolve(features, modules[0], modules[1], residual=residual, **activation)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=25)
@given(
    kernel=st.sampled_from((1, 2, 3, 5)),
    stride=st.sampled_from((1, 2, 3)),
    size=st.tuples(st.integers(6, 9), st.integers(6, 9)),
    groups=st.sampled_from((1, 4)),
    onednn=st.booleans(),
)
def test_same_padding_is_tensorflows_with_and_without_gradients(
    kernel: int, stride: int, size: tuple[int, int], groups: int, onednn: bool
) -> None:
    convolution = nn.Conv2d(4, 8, kernel, stride, groups=groups)
    features = torch.randn(2, 4, *size).contiguous(memory_format=torch.channels_last)
    # Keras: the total is what the last window lacks, and the larger half of it is below and on the right.
    lacks = [max((-(-edge // stride) - 1) * stride + kernel - edge, 0) for edge in size]
    (above, below), (left, right) = ((total // 2, total - total // 2) for total in lacks)
    expected = convolution(F.pad(features, (left, right, above, below)))
    assert expected.shape[2:] == tuple(-(-edge // stride) for edge in size)
    torch.testing.assert_close(convolve(features, convolution, same=True), expected)
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=onednn):
        torch.testing.assert_close(convolve(features, convolution, same=True), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("changed", ["0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"])
def test_a_change_of_any_tensor_in_place_reaches_the_next_inference(changed: str) -> None:
    modules, features = pair(), torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        before = convolve(features, modules[0], modules[1])
        modules.state_dict()[changed].mul_(2.0)
        after = convolve(features, modules[0], modules[1])
        torch.testing.assert_close(after, reference(features, modules), atol=1e-5, rtol=1e-5)
    assert not torch.equal(before, after)


def test_loaded_weights_and_a_new_precision_reach_the_next_inference() -> None:
    modules, other, features = pair(), pair(), torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        convolve(features, modules[0], modules[1])
        modules.load_state_dict(other.state_dict())
        torch.testing.assert_close(convolve(features, modules[0], modules[1]), reference(features, other))
        modules.double()
        found = convolve(features.double(), modules[0], modules[1])
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, reference(features.double(), modules))


def test_a_copied_model_does_not_share_folded_weights() -> None:
    modules, features = pair(), torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        expected = convolve(features, modules[0], modules[1])
        copied = copy.deepcopy(modules)
        copied[0].weight.zero_()
        torch.testing.assert_close(convolve(features, modules[0], modules[1]), expected, atol=0, rtol=0)
        assert not torch.allclose(convolve(features, copied[0], copied[1]), expected)


def test_a_norm_in_training_mode_uses_and_updates_batch_statistics_even_without_gradients() -> None:
    modules, features = pair().train(), torch.randn(4, 4, 5, 5)
    expected_modules = copy.deepcopy(modules)
    with torch.no_grad():
        torch.testing.assert_close(
            convolve(features, modules[0], modules[1]), reference(features, expected_modules), atol=0, rtol=0
        )
    torch.testing.assert_close(modules[1].running_mean, expected_modules[1].running_mean, atol=0, rtol=0)


def test_with_gradients_the_residual_stays_unchanged_and_every_parameter_gets_a_gradient() -> None:
    modules, features = pair().train(), torch.randn(2, 4, 5, 5)
    residual = torch.randn(2, 6, 5, 5)
    before = residual.clone()
    convolve(features, modules[0], modules[1], relu=True, residual=residual).sum().backward()
    assert torch.equal(residual, before)
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in modules.parameters())


def test_autocast_determines_the_precision() -> None:
    modules, features = pair(), torch.randn(1, 4, 5, 5)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = convolve(features, modules[0], modules[1], relu=True)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), reference(features, modules, "relu"), atol=0.1, rtol=0.05)


def test_inference_follows_a_fused_optimizer_that_raises_no_versions() -> None:
    convolution, features = nn.Conv2d(4, 6, 3, padding=1), torch.randn(1, 4, 5, 5)
    optimiser = torch.optim.AdamW(convolution.parameters(), lr=0.5, fused=True)
    with torch.no_grad():
        before = convolve(features, convolution)
    convolve(features, convolution).sum().backward()
    optimiser.step()
    with torch.no_grad():
        after = convolve(features, convolution)
        torch.testing.assert_close(after, convolution(features))
    assert not torch.allclose(after, before)


def test_folded_weights_are_freed_with_their_model() -> None:
    modules, features = pair(), torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        convolve(features, modules[0], modules[1])
    weight = weakref.ref(modules[0].weight)
    folded = weakref.ref(_folded_weights(modules[0], modules[1], torch.float32, _Padding.NONE, features)[0])
    assert folded() is not None
    del modules
    gc.collect()
    assert weight() is None and folded() is None


@settings(deadline=None, max_examples=30)
@given(
    changes=st.lists(
        st.sampled_from(("inference", "write", "load", "precision", "replace", "train", "copy")), min_size=1, max_size=8
    ),
    bias=st.booleans(),
)
def test_inference_equals_the_modules_after_any_sequence_of_changes(changes: list[str], bias: bool) -> None:
    modules = pair(bias=bias)
    features = torch.randn(2, 4, 5, 5, dtype=torch.float64)

    def check() -> None:
        inputs = features.to(modules[0].weight.dtype)
        with torch.inference_mode():
            torch.testing.assert_close(
                convolve(inputs, modules[0], modules[1]), reference(inputs, modules), atol=1e-5, rtol=1e-5
            )

    check()
    for change in changes:
        if change == "write":
            with torch.no_grad():
                modules[1].running_var.mul_(1.5)
        elif change == "load":
            modules.load_state_dict(pair(bias=bias).state_dict())
        elif change == "precision":
            modules.to(torch.float64 if modules[0].weight.dtype == torch.float32 else torch.float32)
        elif change == "replace":
            modules[0].weight = nn.Parameter(torch.randn_like(modules[0].weight))
        elif change == "train":
            optimiser = torch.optim.AdamW(modules.parameters(), lr=0.1, fused=True)
            convolve(features.to(modules[0].weight.dtype), modules[0], modules[1].train()).square().sum().backward()
            optimiser.step()
            modules.eval()
        elif change == "copy":
            modules = copy.deepcopy(modules)
        check()


@pytest.mark.skipif(not _supports_bf16(), reason="oneDNN has no bf16 kernels for this CPU")
@pytest.mark.parametrize("adds", [False, True])
def test_under_autocast_one_fused_operation_computes_in_bf16(adds: bool) -> None:
    modules = pair(in_channels=16, out_channels=16)
    features = torch.randn(2, 16, 9, 11).contiguous(memory_format=torch.channels_last)
    residual = torch.randn(2, 16, 9, 11).contiguous(memory_format=torch.channels_last) if adds else None
    with torch.no_grad():
        expected = reference(features, modules, "relu", residual)
        with torch.autocast("cpu", torch.bfloat16):
            reduced = None if residual is None else residual.bfloat16()
            convolve(features, modules[0], modules[1], relu=True, residual=reduced)
            reduced, inputs = None if residual is None else residual.bfloat16(), features.bfloat16()
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
                found = convolve(inputs, modules[0], modules[1], relu=True, residual=reduced)
    names = {event.key for event in profile.key_averages()}
    assert not names & {"aten::relu_", "aten::add_", "aten::clamp_min_", "aten::_to_copy"}
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0.05)


def test_a_change_of_precision_reaches_the_next_inference() -> None:
    modules, features = pair(), torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        expected = reference(features, modules)
        with torch.autocast("cpu", torch.bfloat16):
            assert convolve(features, modules[0], modules[1]).dtype == torch.bfloat16
        torch.testing.assert_close(convolve(features, modules[0], modules[1]), expected, atol=1e-5, rtol=1e-5)
