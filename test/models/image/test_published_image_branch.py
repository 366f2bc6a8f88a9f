# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The image branches agree with the published models, stage by stage, on one camera of a real keyframe."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from aqr_perception.models.image.fpn import CPFPN
from aqr_perception.models.image.resnet import ResNet
from aqr_perception.models.image.vovnet import VoVNet


@pytest.mark.parametrize(
    ("name", "backbone_class"), [("cmt_voxel0100_r50_800x320", ResNet), ("petr_vov_800x320", VoVNet)]
)
def test_backbone_and_neck_reproduce_the_published_features(
    name: str, backbone_class: type[nn.Module], published: Callable, front_image: Tensor
) -> None:
    model = published(name)
    backbone = backbone_class().eval()
    neck = CPFPN(backbone.out_channels).eval()
    model.fill(backbone, "img_backbone.")
    model.fill(neck, "img_neck.")
    with torch.inference_mode():
        levels = backbone(front_image)
        stages = {"img_backbone/0": levels[0], "img_backbone/1": levels[1], "img_neck/0": neck(levels)}
    for stage, features in stages.items():
        assert features.shape[1:] == model.shape(stage)[1:]
        index, expected = model.first_view_samples(stage)
        torch.testing.assert_close(features.flatten()[index], expected, atol=2e-5, rtol=0, msg=lambda m, s=stage: s + m)


def test_the_published_vovnet_neck_also_gives_the_coarse_level(published: Callable) -> None:
    model = published("petr_vov_800x320")
    neck = CPFPN((768, 1024)).eval()
    model.fill(neck, "img_neck.")
    levels = (torch.randn(1, 768, 6, 8), torch.randn(1, 1024, 3, 4))
    with torch.no_grad():
        coarse = neck.top_down(levels)[1]
    lateral = neck.lateral_convs[1].conv
    torch.testing.assert_close(coarse, nn.functional.conv2d(levels[1], lateral.weight, lateral.bias))
