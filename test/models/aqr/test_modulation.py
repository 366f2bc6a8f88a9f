# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Modulation scales features where the map is positive and leaves the others unchanged."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.models.aqr.modulation import modulate


def test_strength_zero_returns_the_features_themselves() -> None:
    features = torch.randn(1, 3, 4)
    assert modulate(features, torch.rand(1, 3), 0.0) is features


@given(st.floats(0.1, 4.0), st.floats(0.01, 1.5))
@settings(deadline=None)
def test_features_are_multiplied_by_one_plus_strength_times_map_minus_one(strength: float, weight: float) -> None:
    features = torch.randn(1, 2, 4)
    modulated = modulate(features, torch.tensor([[weight, 0.0]]), strength)
    torch.testing.assert_close(modulated[0, 0], features[0, 0] * (1 + strength * (weight - 1)), atol=1e-4, rtol=1e-4)
    assert torch.equal(modulated[0, 1], features[0, 1])
