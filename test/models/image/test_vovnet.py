# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""VoVNet's parts; its agreement with a published model is in test_published_image_branch.py."""

import torch

from aqr_perception.models.image.vovnet import EffectiveSqueezeExcitation, OneShotAggregation, VoVNet


def test_excitation_is_the_hard_sigmoid_of_the_linear_map_of_channel_means() -> None:
    excitation = EffectiveSqueezeExcitation(8)
    features = 20 * torch.randn(2, 8, 3, 5)
    means = features.mean((2, 3))
    linear = means @ excitation.fc.weight[:, :, 0, 0].T + excitation.fc.bias
    expected = (linear + 3).clamp(0, 6) / 6
    torch.testing.assert_close(excitation(features)[:, :, 0, 0], expected)


def test_identity_adds_the_input_to_the_block() -> None:
    plain = OneShotAggregation(16, 8, 16, "block", identity=False).eval()
    added = OneShotAggregation(16, 8, 16, "block", identity=True).eval()
    added.load_state_dict(plain.state_dict())
    features = torch.randn(1, 16, 6, 6)
    with torch.inference_mode():
        torch.testing.assert_close(added(features), plain(features) + features)


def test_pooling_keeps_an_odd_last_row_and_column() -> None:
    backbone = VoVNet().eval()
    with torch.inference_mode():
        stage4, stage5 = backbone(torch.randn(1, 3, 72, 104))
    assert stage4.shape == (1, 768, 4, 6) and stage5.shape == (1, 1024, 2, 3)


def test_inference_equals_the_differentiable_forward() -> None:
    block = OneShotAggregation(16, 8, 16, "block", identity=True).eval()
    features = torch.randn(2, 16, 6, 6)
    before = features.clone()
    expected = block(features).detach()
    with torch.inference_mode():
        torch.testing.assert_close(block(features), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(features, before)
    block.train()
    block(features).sum().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())
