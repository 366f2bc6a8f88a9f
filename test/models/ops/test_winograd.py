"""Winograd's convolution is the direct one, whatever the sizes and however the work is cut."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from aqr_perception.models.ops import winograd
from aqr_perception.models.ops.convolution import convolve


@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    bias=st.booleans(),
    relu=st.booleans(),
    buffer=st.sampled_from((1, 500, 4_000_000)),
    channels_last=st.booleans(),
)
def test_it_equals_the_direct_convolution(
    batch: int,
    height: int,
    width: int,
    channels: tuple[int, int],
    bias: bool,
    relu: bool,
    buffer: int,
    channels_last: bool,
) -> None:
    features = torch.randn(batch, channels[0], height, width)
    if channels_last:
        features = features.contiguous(memory_format=torch.channels_last)
    weight, offset = torch.randn(channels[1], channels[0], 3, 3), torch.randn(channels[1]) if bias else None
    before = features.clone()
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(winograd, "_BUFFER", buffer)
        found = winograd.convolve_3x3(features, winograd.transform_kernel(weight), offset, relu)
    expected = F.conv2d(features, weight, offset, padding=1)
    torch.testing.assert_close(found, expected.relu() if relu else expected, atol=3e-4, rtol=1e-4)
    assert torch.equal(features, before)


@pytest.mark.parametrize(
    ("changes", "size", "expected"),
    [
        ({}, (32, 32), True),
        ({}, (12, 12), False),
        ({"kernel_size": 1, "padding": 0}, (32, 32), False),
        ({"stride": 2}, (32, 32), False),
        ({"padding": 0}, (32, 32), False),
        ({"dilation": 2, "padding": 2}, (32, 32), False),
        ({"groups": 2}, (32, 32), False),
        ({"out_channels": 64}, (32, 32), False),
        ({"padding_mode": "reflect"}, (32, 32), False),
    ],
)
def test_it_is_chosen_only_for_wide_plain_3x3_convolutions_of_enough_pixels(
    changes: dict, size: tuple[int, int], expected: bool
) -> None:
    shape = {"in_channels": 128, "out_channels": 128, "kernel_size": 3, "padding": 1, **changes}
    convolution, features = nn.Conv2d(**shape), torch.randn(1, 128, *size)
    assert winograd.pays(convolution, features) is expected
    residual = torch.zeros_like(convolution(features))
    with torch.inference_mode():
        found = convolve(features, convolution, relu=True, residual=residual)
        torch.testing.assert_close(found, convolution(features).relu(), atol=1e-4, rtol=1e-4)
