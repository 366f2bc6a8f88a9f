# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The simple feature pyramid."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from aqr_perception.models.image.pyramid import SimpleFeaturePyramid


def normalised(features: Tensor) -> Tensor:
    """Return features with mean 0 and standard deviation 1 over the channels of each cell."""
    centred = features - features.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()


def test_every_level_is_resampled_and_convolved_twice() -> None:
    torch.manual_seed(0)
    pyramid, features = SimpleFeaturePyramid(6, (2, 3, 4), 5), torch.randn(2, 6, 4, 6)
    up = pyramid.levels[0][0]
    sources = (F.conv_transpose2d(features, up.weight, up.bias, stride=2), features, F.max_pool2d(features, 2))
    for level, source, output in zip(pyramid.levels, sources, pyramid(features), strict=True):
        hidden = normalised(F.conv2d(source, level[1].weight))
        torch.testing.assert_close(output, normalised(F.conv2d(hidden, level[3].weight, padding=1)))


def test_an_odd_last_row_becomes_a_cell() -> None:
    (coarse,) = SimpleFeaturePyramid(4, (4,), 8)(torch.randn(1, 4, 5, 3))
    assert coarse.shape == (1, 8, 3, 2)


@pytest.mark.parametrize("stages", [(), (1, 2), (4, 3), (3, 3)])
def test_other_stages_are_refused(stages: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ascending stages out of 2, 3, 4"):
        SimpleFeaturePyramid(4, stages)
