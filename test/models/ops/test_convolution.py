"""Fused inference gives what the plain modules give, and follows every change of their weights."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from aqr_perception.models.ops.convolution import convolve


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


def reference(features: Tensor, modules: nn.ModuleList, relu: bool = False, residual: Tensor | None = None) -> Tensor:
    outputs = modules[1](modules[0](features))
    outputs = outputs if residual is None else outputs + residual
    return outputs.relu() if relu else outputs


@settings(deadline=None, max_examples=25)
@given(
    kernel=st.sampled_from((1, 3, 7)),
    stride=st.sampled_from((1, 2)),
    bias=st.booleans(),
    relu=st.booleans(),
    adds=st.booleans(),
    batch=st.integers(0, 2),
    onednn=st.booleans(),
)
def test_inference_equals_the_modules_for_every_combination(
    kernel: int, stride: int, bias: bool, relu: bool, adds: bool, batch: int, onednn: bool
) -> None:
    modules = pair(kernel=kernel, stride=stride, bias=bias)
    features = torch.randn(batch, 4, 9, 11).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=onednn):
        residual = torch.randn_like(modules[0](features)) if adds else None
        expected = reference(features, modules, relu, residual)
        found = convolve(features, modules[0], modules[1], relu=relu, residual=residual)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("changed", ["0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"])
def test_a_change_of_any_tensor_in_place_reaches_the_next_inference(changed: str) -> None:
    modules, features = pair(), torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        before = convolve(features, modules[0], modules[1])
        modules.state_dict()[changed].mul_(2.0)
        after = convolve(features, modules[0], modules[1])
        torch.testing.assert_close(after, reference(features, modules), atol=1e-5, rtol=1e-5)
    assert not torch.equal(before, after)


def test_newly_loaded_weights_and_another_precision_reach_the_next_inference() -> None:
    modules, other, features = pair(), pair(), torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        convolve(features, modules[0], modules[1])
        modules.load_state_dict(other.state_dict())
        torch.testing.assert_close(convolve(features, modules[0], modules[1]), reference(features, other))
        modules.double()
        found = convolve(features.double(), modules[0], modules[1])
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, reference(features.double(), modules))


def test_a_copied_model_has_weights_of_its_own_after_inference() -> None:
    modules, features = pair(), torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        expected = convolve(features, modules[0], modules[1])
        copied = copy.deepcopy(modules)
        copied[0].weight.zero_()
        torch.testing.assert_close(convolve(features, modules[0], modules[1]), expected, atol=0, rtol=0)
        assert not torch.allclose(convolve(features, copied[0], copied[1]), expected)


def test_a_norm_in_training_mode_uses_and_updates_batch_statistics_also_without_gradients() -> None:
    modules, features = pair().train(), torch.randn(4, 4, 5, 5)
    expected_modules = copy.deepcopy(modules)
    with torch.no_grad():
        torch.testing.assert_close(
            convolve(features, modules[0], modules[1]), reference(features, expected_modules), atol=0, rtol=0
        )
    torch.testing.assert_close(modules[1].running_mean, expected_modules[1].running_mean, atol=0, rtol=0)


def test_with_gradients_the_residual_is_kept_and_every_parameter_gets_one() -> None:
    modules, features = pair().train(), torch.randn(2, 4, 5, 5)
    residual = torch.randn(2, 6, 5, 5)
    before = residual.clone()
    convolve(features, modules[0], modules[1], relu=True, residual=residual).sum().backward()
    assert torch.equal(residual, before)
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in modules.parameters())


def test_autocast_computes_in_its_own_precision() -> None:
    modules, features = pair(), torch.randn(1, 4, 5, 5)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = convolve(features, modules[0], modules[1], relu=True)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), reference(features, modules, relu=True), atol=0.1, rtol=0.05)


def test_inference_follows_a_fused_optimiser_which_raises_no_versions() -> None:
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
