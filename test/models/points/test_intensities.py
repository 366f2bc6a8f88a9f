# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Intensities by their order: any LiDAR's scale gives the same ones, in the wanted distribution."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aqr_perception.models import build_model
from aqr_perception.models.fusion_model import FusionModel
from aqr_perception.models.points.intensities import matched_intensities

QUANTILES = (0.0, 18.0, 24.0, 29.0, 38.0, 51.0, 70.0, 100.0, 255.0)


def cloud(intensities: Tensor) -> Tensor:
    points = torch.rand(len(intensities), 5, generator=torch.Generator().manual_seed(0))
    points[:, 3] = intensities
    return points


def matched(intensities: Tensor) -> Tensor:
    return matched_intensities(cloud(intensities), QUANTILES)[:, 3]


def whole_numbers(most: int) -> st.SearchStrategy[Tensor]:
    return st.lists(st.integers(0, most), min_size=1, max_size=300).map(lambda values: torch.tensor(values).float())


@given(whole_numbers(255))
def test_the_order_of_the_intensities_is_kept_and_all_else_is_unchanged(intensities: Tensor) -> None:
    before, wanted = cloud(intensities), QUANTILES
    after = matched_intensities(before, wanted)
    assert torch.equal(before, cloud(intensities))
    assert torch.equal(after[:, (0, 1, 2, 4)], before[:, (0, 1, 2, 4)])
    assert after[:, 3].min() >= wanted[0] and after[:, 3].max() <= wanted[-1]
    more = intensities[:, None] > intensities
    assert torch.equal(after[:, None, 3] > after[:, 3], more)


@given(whole_numbers(255), st.sampled_from([1 / 255, 1 / 3, 2.0, 257.0, 1e6]))
def test_the_scale_of_a_lidars_intensities_does_not_matter(intensities: Tensor, gain: float) -> None:
    assert torch.equal(matched(gain * intensities), matched(intensities))
    assert torch.equal(matched(intensities.square()), matched(intensities))
    assert torch.equal(matched(intensities.sqrt()), matched(intensities))


def test_the_quantiles_of_any_cloud_are_the_wanted_ones() -> None:
    random = torch.Generator().manual_seed(1)
    intensities = 255 * torch.rand(20_000, generator=random) ** 3
    ranks = torch.linspace(0, 1, len(QUANTILES))
    found = matched(intensities).quantile(ranks)
    # The lowest of 256 values has many points.
    torch.testing.assert_close(found[3:], torch.tensor(QUANTILES[3:]), atol=1.0, rtol=0.02)


@pytest.mark.parametrize("intensity", [0.0, 7.0, float("nan"), float("inf")])
def test_a_lidar_without_intensities_gets_those_of_the_middle(intensity: float) -> None:
    assert torch.equal(matched(torch.full((5,), intensity)), torch.full((5,), 38.0))


def test_without_quantiles_or_points_nothing_changes() -> None:
    points = cloud(torch.arange(5.0))
    assert matched_intensities(points, ()) is points
    assert matched_intensities(points[:0], QUANTILES).shape == (0, 5)


@torch.inference_mode()
def test_a_model_with_quantiles_sees_the_same_in_the_clouds_of_a_lidar_with_another_scale() -> None:
    model = build_model("aqr_tiny").eval()
    assert isinstance(model, FusionModel) and model.preset.points is not None
    assert model.preset.points.intensity_quantiles
    points = cloud(torch.arange(2000.0) % 120)
    points[:, :3] = 20 * points[:, :3] - 10
    other = points.clone()
    other[:, 3] *= 2
    first, second = (model.bev_features([given]) for given in (points, other))
    assert first is not None and second is not None and torch.equal(first, second) and first.any()
