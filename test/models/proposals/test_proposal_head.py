# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Peaks of proposal maps, and their convolutions with and without gradients."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.models.proposals.proposal_head import _HeatHead, _highest_nearby


@settings(deadline=None, max_examples=20)
@given(shape=st.tuples(*[st.integers(1, 7)] * 4), seed=st.integers(0, 99), levels=st.integers(2, 50))
def test_the_highest_nearby_is_a_max_pooling(shape: tuple[int, int, int, int], seed: int, levels: int) -> None:
    scores = torch.randint(levels, shape, generator=torch.Generator().manual_seed(seed)) / levels
    assert torch.equal(_highest_nearby(scores), F.max_pool2d(scores, 3, stride=1, padding=1))


def test_maps_are_the_same_with_and_without_gradients_and_have_a_cell_for_each_quarter() -> None:
    head, features = _HeatHead(5, classes=3), torch.randn(2, 5, 4, 6)
    maps = head(features)
    assert maps.shape == (2, 13, 8, 12) and maps.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(head(features), maps)


def test_depths_and_sizes_keep_their_digits_under_autocast() -> None:
    head, features = _HeatHead(5, classes=3), torch.randn(2, 5, 4, 6)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        maps = head(features)
    assert maps.dtype == torch.float32
    assert not torch.equal(maps, maps.bfloat16().float())
    torch.testing.assert_close(maps, head(features).detach(), atol=0.01, rtol=0.01)
