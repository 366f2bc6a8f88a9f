# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Modulation equals the research code's, and leaves precision and samples apart."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from aqr_perception.models.aqr_cmt import feature_modulation
from aqr_perception.models.aqr_cmt.feature_modulation import ModulationOptions, adaptive, channel_wise, element_wise

MODULATIONS = (element_wise, channel_wise, adaptive)
OPTIONS = {
    "residual07": ModulationOptions(residual=0.7),
    "no_residual": ModulationOptions(residual=None),
    "normalized_residual01": ModulationOptions(residual=0.1, normalize=True),
    "learnable_tanh": ModulationOptions(residual=0.7, scale=torch.tensor([1.3]), bias=torch.tensor([-0.2]), tanh=True),
}
GRIDS = ("bev", "image")


@pytest.fixture(scope="module")
def golden(shared_reference: Path) -> dict[str, Tensor]:
    file = np.load(shared_reference / "golden" / "aqr_functions.npz")
    kinds = ("modulate/", "render/gaussian_sigma1/")
    return {key.removeprefix("modulate/"): torch.from_numpy(file[key]) for key in file if key.startswith(kinds)}


def test_the_test_below_covers_every_array_of_the_file(golden: dict[str, Tensor]) -> None:
    names = {"element_wise", "channel_wise", "adaptive"}
    covered = {f"{name}/{options}/{grid}" for name in names for options in OPTIONS for grid in GRIDS}
    found = {key for key in golden if not key.startswith("render/")}
    assert found == covered | {"bev_features", "image_features"}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["element_wise", "channel_wise", "adaptive"])
def test_modulated_features_equal_the_research_codes(
    golden: dict[str, Tensor], name: str, options: str, grid: str
) -> None:
    maps, features = golden[f"render/gaussian_sigma1/{grid}"], golden[f"{grid}_features"]
    features = features.view(*maps.shape[:-2], *features.shape[1:])  # views of a sample apart
    found = getattr(feature_modulation, name)(features, maps, OPTIONS[options])
    expected = golden[f"{name}/{options}/{grid}"]
    torch.testing.assert_close(found.view_as(expected), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("modulate", MODULATIONS)
def test_features_shrink_to_the_residual_where_the_map_is_zero(modulate) -> None:
    features = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(modulate(features, torch.zeros(2, 4, 5), ModulationOptions()), 0.7 * features)
    assert not modulate(features, torch.zeros(2, 4, 5), ModulationOptions(residual=None)).any()


@pytest.mark.parametrize("modulate", MODULATIONS)
@pytest.mark.parametrize("value", [0.0, 0.3, 1.5])
def test_a_constant_map_is_normalized_to_one_half(modulate, value: float) -> None:
    features = torch.randn(1, 3, 4, 5)
    found = modulate(features, torch.full((1, 4, 5), value), ModulationOptions(residual=None, normalize=True))
    torch.testing.assert_close(found, 0.5 * features)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("modulate", MODULATIONS)
def test_each_map_affects_its_own_features_only(modulate, options: ModulationOptions) -> None:
    features, maps = torch.randn(2, 3, 4, 5, 6), torch.rand(2, 3, 5, 6)
    other = maps.clone()
    other[1, 2] = other[1, 2].square() + 0.5
    before, after = modulate(features, maps, options), modulate(features, other, options)
    changed = (before != after).flatten(2).any(-1)
    assert changed.tolist() == [[False] * 3, [False, False, True]]
    torch.testing.assert_close(before[1, 0], modulate(features[1, 0], maps[1, 0], options))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("modulate", MODULATIONS)
def test_gradients_of_features_map_scale_and_bias_are_exact(modulate, normalize: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    features, maps = (torch.rand(*shape, generator=generator).double() for shape in ((1, 2, 3, 4), (1, 3, 4)))
    scale, bias = torch.tensor([1.3]).double(), torch.tensor([-0.2]).double()
    inputs = [tensor.requires_grad_() for tensor in (features, maps, scale, bias)]

    def modulated(features: Tensor, maps: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return modulate(features, maps, ModulationOptions(0.7, normalize, scale, bias, tanh=True))

    assert torch.autograd.gradcheck(modulated, inputs)


@pytest.mark.parametrize("modulate", MODULATIONS)
def test_gradients_through_a_constant_map_are_finite(modulate) -> None:
    maps = torch.zeros(1, 4, 5, requires_grad=True)
    modulate(torch.randn(1, 3, 4, 5), maps, ModulationOptions(normalize=True)).sum().backward()
    assert maps.grad is not None and maps.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("modulate", MODULATIONS)
def test_features_keep_their_precision(modulate, dtype: torch.dtype) -> None:
    features, maps = torch.randn(1, 3, 4, 5), torch.rand(1, 4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found = modulate(features.to(dtype), maps, ModulationOptions())
        exact = modulate(features, maps, ModulationOptions())
    assert found.dtype == dtype and exact.dtype == torch.float32
    torch.testing.assert_close(exact, modulate(features, maps, ModulationOptions()), atol=0, rtol=0)
    torch.testing.assert_close(found.float(), exact, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("modulate", MODULATIONS)
def test_missing_sensors_stay_empty(modulate, options: ModulationOptions) -> None:
    assert modulate(torch.zeros(1, 3, 0, 0), torch.zeros(1, 0, 0), options).shape == (1, 3, 0, 0)
    assert modulate(torch.zeros(1, 0, 3, 4, 5), torch.zeros(1, 0, 4, 5), options).shape == (1, 0, 3, 4, 5)
