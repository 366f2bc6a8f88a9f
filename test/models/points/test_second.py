# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""SECOND and its FPN over the BEV."""

import pytest
import torch

from aqr_perception.models.points.second import SECOND, SECONDFPN


def small_branch() -> tuple[SECOND, SECONDFPN]:
    torch.manual_seed(0)
    backbone, neck = SECOND(6, (8, 12), (1, 2)), SECONDFPN((8, 12), 10)
    for _ in range(3):  # changes the running statistics
        neck(backbone(torch.randn(2, 6, 8, 8) + 1))
    return backbone.eval(), neck.eval()


def test_the_neck_returns_all_stages_at_the_first_resolution() -> None:
    backbone, neck = small_branch()
    stages = backbone(torch.randn(2, 6, 16, 24))
    assert [tuple(stage.shape) for stage in stages] == [(2, 8, 16, 24), (2, 12, 8, 12)]
    assert neck(stages).shape == (2, neck.out_channels, 16, 24) == (2, 20, 16, 24)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_inference_equals_the_modules_one_by_one(memory_format: torch.memory_format) -> None:
    backbone, neck = small_branch()
    view = torch.randn(2, 6, 16, 24).contiguous(memory_format=memory_format)
    first = backbone.blocks[0](view)
    second = backbone.blocks[1](first)
    expected = torch.cat([neck.deblocks[0](first), neck.deblocks[1](second)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(neck(backbone(view)), expected)


def test_inference_does_not_write_into_its_input() -> None:
    backbone, neck = small_branch()
    view = torch.randn(1, 6, 8, 8).contiguous(memory_format=torch.channels_last)
    kept = view.clone()
    with torch.no_grad():
        stages = backbone(view)
        copies = [stage.clone() for stage in stages]
        neck(stages)
    assert torch.equal(view, kept)
    assert all(torch.equal(stage, copy) for stage, copy in zip(stages, copies, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_close(dtype: torch.dtype) -> None:
    backbone, neck = small_branch()
    view = torch.randn(1, 6, 16, 16)
    with torch.no_grad():
        expected = neck(backbone(view))
        result = neck.to(dtype)(backbone.to(dtype)(view.to(dtype)))
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), expected, atol=10 * torch.finfo(dtype).eps, rtol=0.1)
