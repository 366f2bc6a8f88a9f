# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A folded batch norm gives the same result as convolution and norm one after the other."""

import pytest
import torch
from torch import nn

from aqr_perception.models.ops.folding import fold


def trained_norm(channels: int, affine: bool = True) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, eps=1e-3, affine=affine)
    for _ in range(3):
        norm(torch.randn(4, channels, 3, 3) * 2 + 1)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm.eval()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_the_folded_convolution_equals_convolution_then_norm(
    kind: type[nn.Conv2d] | type[nn.ConvTranspose2d], groups: int, bias: bool
) -> None:
    torch.manual_seed(0)
    convolution = kind(4, 6, 3, stride=2, groups=groups, bias=bias).double()
    norm = trained_norm(6).double()
    features = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    expected = norm(convolution(features))
    weight, shift = fold(convolution, norm)
    function = nn.functional.conv2d if kind is nn.Conv2d else nn.functional.conv_transpose2d
    torch.testing.assert_close(function(features, weight, shift, stride=2, groups=groups), expected)


def test_a_norm_without_scale_and_shift_folds() -> None:
    convolution, norm = nn.Conv2d(3, 5, 1), trained_norm(5, affine=False)
    features = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(nn.functional.conv2d(features, *fold(convolution, norm)), norm(convolution(features)))


def test_half_precision_weights_stay_half_and_are_rounded_once() -> None:
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 5, 1, bias=False).half(), trained_norm(5).half()
    weight, bias = fold(convolution, norm)
    assert weight.dtype == bias.dtype == torch.float16
    reference, _ = fold(convolution.double(), norm.double())
    assert torch.equal(weight, reference.float().half())


def test_gradients_reach_the_convolution_and_the_norm() -> None:
    convolution, norm = nn.Conv2d(3, 5, 1), trained_norm(5)
    weight, bias = fold(convolution, norm)
    (weight.square().sum() + bias.square().sum()).backward()
    for parameter in (*convolution.parameters(), *norm.parameters()):
        assert parameter.grad is not None and parameter.grad.abs().max() > 0


def test_a_norm_without_running_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match="track_running_stats"):
        fold(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5, track_running_stats=False))


def test_a_norm_over_other_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="norm has 5 channels, but the convolution has 4"):
        fold(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(5))
