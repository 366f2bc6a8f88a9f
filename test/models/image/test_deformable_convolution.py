# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Deformable convolution equals a plain loop over its definition."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from aqr_perception.models.image.deformable_convolution import DeformableConvolution, deformable_convolve
from aqr_perception.models.image.resnet import Bottleneck, ResNet


def by_loops(features: Tensor, offsets: Tensor, mask: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Return DCNv2's equation 1, cell by cell, with the bilinear interpolation of DCNv1's equations 3 and 4."""
    count, channels, height, width = features.shape
    out, _, size, _ = weight.shape
    rows, columns = offsets.shape[2:]
    output = torch.zeros(count, out, rows, columns)
    for n, row, column, k in itertools.product(range(count), range(rows), range(columns), range(size * size)):
        y = row * stride - padding + k // size + float(offsets[n, 2 * k, row, column])
        x = column * stride - padding + k % size + float(offsets[n, 2 * k + 1, row, column])
        value = torch.zeros(channels)
        for q_y, q_x in itertools.product((math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)):
            if 0 <= q_y < height and 0 <= q_x < width:
                value += max(0.0, 1 - abs(q_y - y)) * max(0.0, 1 - abs(q_x - x)) * features[n, :, q_y, q_x]
        output[n, :, row, column] += weight[:, :, k // size, k % size] @ value * mask[n, k, row, column]
    return output


@pytest.mark.parametrize("with_gradients", [False, True])
@pytest.mark.parametrize(("stride", "padding", "size"), [(1, 1, 3), (2, 1, 3), (1, 0, 1), (2, 2, 5)])
def test_it_equals_a_plain_loop(stride: int, padding: int, size: int, with_gradients: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 6, 5, generator=generator)
    rows, columns = ((edge + 2 * padding - size) // stride + 1 for edge in (6, 5))
    offsets = 2.5 * torch.randn(2, 2 * size * size, rows, columns, generator=generator)  # many lie outside
    mask = torch.rand(2, size * size, rows, columns, generator=generator)
    weight = torch.randn(4, 3, size, size, generator=generator)
    expected = by_loops(features, offsets, mask, weight, stride, padding)
    found = deformable_convolve(features.requires_grad_(with_gradients), offsets, mask, weight, stride, padding)
    assert found.requires_grad == with_gradients
    torch.testing.assert_close(found.detach(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_without_offsets_it_is_an_ordinary_convolution(stride: int) -> None:
    features, weight = torch.randn(1, 3, 7, 8), torch.randn(4, 3, 3, 3)
    expected = F.conv2d(features, weight, stride=stride, padding=1)
    shape = expected.shape[2:]
    found = deformable_convolve(features, torch.zeros(1, 18, *shape), torch.ones(1, 9, *shape), weight, stride, 1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_it_starts_as_an_ordinary_convolution_of_half_the_weight_and_learns_offsets() -> None:
    layer, features = DeformableConvolution(3, 4), torch.randn(1, 3, 6, 7)
    found = layer(features)
    torch.testing.assert_close(2 * found, F.conv2d(features, layer.weight, padding=1), atol=1e-4, rtol=1e-4)
    found.square().sum().backward()
    assert layer.conv_offset.weight.grad.flatten(1).any(dim=1).all()


def test_resnet_has_it_in_the_configured_stages() -> None:
    backbone = ResNet(101, (3, 4), deformable_stages=(3, 4), stride_first=True)
    for stage in (1, 2, 3, 4):
        for block in backbone.get_submodule(f"layer{stage}").children():
            assert isinstance(block, Bottleneck) and isinstance(block.conv2, DeformableConvolution) == (stage > 2)
    first = backbone.get_submodule("layer3.0")
    assert isinstance(first, Bottleneck) and first.conv1.stride == (2, 2)
    with pytest.raises(ValueError, match="depth is 18"):
        ResNet(18, deformable_stages=(4,))


def test_inference_with_folded_norms_equals_the_differentiable_forward() -> None:
    block = Bottleneck(16, 4, 2, deformable=True, stride_first=True).eval()
    features = torch.randn(2, 16, 8, 6)
    plain = block(features)
    assert plain.shape == (2, 16, 4, 3)
    with torch.inference_mode():
        torch.testing.assert_close(block(features), plain.detach(), atol=1e-5, rtol=1e-5)
