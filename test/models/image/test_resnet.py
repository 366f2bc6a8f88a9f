# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""ResNet: shapes, independence of views, and training."""

import pytest
import torch

from aqr_perception.models.image.resnet import ResNet


@pytest.mark.parametrize(("depth", "stages", "channels"), [(18, (3, 4), (256, 512)), (50, (2, 4), (512, 2048))])
def test_stages_come_at_their_strides_and_widths(
    depth: int, stages: tuple[int, ...], channels: tuple[int, ...]
) -> None:
    backbone = ResNet(depth, stages).eval()
    with torch.inference_mode():
        features = backbone(torch.randn(2, 3, 64, 96))
    assert backbone.out_channels == channels
    for stage, width, level in zip(stages, channels, features, strict=True):
        assert level.shape == (2, width, 64 // 2 ** (stage + 1), 96 // 2 ** (stage + 1))


@pytest.mark.parametrize("depth", [18, 50])
def test_inference_equals_the_differentiable_forward_and_changes_neither_input_nor_outputs(depth: int) -> None:
    backbone = ResNet(depth, (1, 2, 3, 4)).eval()
    images = torch.randn(3, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    before = images.clone()
    expected = backbone(images)
    with torch.inference_mode():
        found = backbone(images)
        again = backbone(images)
    assert torch.equal(images, before)
    for level, same, reference in zip(found, again, expected, strict=True):
        torch.testing.assert_close(level, reference.detach(), atol=1e-4, rtol=1e-4)
        assert torch.equal(level, same)


def test_a_views_features_do_not_depend_on_the_other_views() -> None:
    backbone, images = ResNet(18).eval(), torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        together, alone = backbone(images), backbone(images[1:2])
    for level, single in zip(together, alone, strict=True):
        torch.testing.assert_close(level[1:2], single, atol=1e-5, rtol=1e-5)


def test_no_views_give_empty_levels() -> None:
    with torch.inference_mode():
        features = ResNet(18).eval()(torch.empty(0, 3, 64, 64))
    assert [level.shape for level in features] == [(0, 256, 4, 4), (0, 512, 2, 2)]


def test_a_training_step_changes_the_output_and_the_norms_statistics() -> None:
    backbone, images = ResNet(18).train(), torch.randn(2, 3, 64, 64)
    optimiser = torch.optim.SGD(backbone.parameters(), lr=0.1)
    with torch.inference_mode():
        backbone.eval()
        before = backbone(images)[1].clone()
    backbone.train()
    backbone(images)[1].square().mean().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    optimiser.step()
    backbone.eval()
    with torch.inference_mode():
        assert not torch.allclose(backbone(images)[1], before)
    assert backbone.bn1.running_mean.abs().sum() > 0


@pytest.mark.parametrize(("depth", "stages"), [(34, (3, 4)), (50, (4, 3)), (50, ()), (50, (0, 5))])
def test_an_invalid_configuration_is_refused(depth: int, stages: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="34" if depth == 34 else "out_stages"):
        ResNet(depth, stages)
