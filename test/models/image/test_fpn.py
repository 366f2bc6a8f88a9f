# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Feature pyramids."""

import pytest
import torch
import torch.nn.functional as F

from aqr_perception.models.image.fpn import CPFPN


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_the_finest_level_includes_the_coarser_one_upsampled_by_nearest_neighbour(size: tuple[int, int]) -> None:
    neck = CPFPN((8, 12), 16).eval()
    fine, coarse = torch.randn(2, 8, *size), torch.randn(2, 12, 3, 4)
    before = coarse.clone()
    with torch.no_grad():
        lateral = [convolution.conv for convolution in neck.lateral_convs]
        expected = neck.fpn_convs[0].conv(lateral[0](fine) + F.interpolate(lateral[1](coarse), size, mode="nearest"))
        torch.testing.assert_close(neck((fine, coarse)), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(neck((fine, coarse)), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(coarse, before)


def test_one_level_is_enough() -> None:
    neck = CPFPN((8,), 16)
    assert neck((torch.randn(1, 8, 3, 5),)).shape == (1, 16, 3, 5)


def test_another_number_of_levels_is_refused() -> None:
    with pytest.raises(ValueError, match="2 levels, but got 1"):
        CPFPN((8, 12), 16)((torch.randn(1, 8, 3, 5),))
