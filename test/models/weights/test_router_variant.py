# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Variant of AQR in weights, from keys, shapes and constants."""

import pytest
import torch
from helpers.preset_weights import (
    BIAS,
    GENERATOR,
    MODULATION,
    PLAIN,
    bias_constants,
    intermediate,
    published,
    weights_of,
)

from aqr_perception.models.weights.router_variant import router_variant


@pytest.mark.parametrize(
    ("preset", "kind"),
    [
        (PLAIN, "own router"),
        ("aqr_tiny", "own router"),
        (BIAS, "research bias"),
        ("aqr_cmt_voxel0075_vov_1600x640", "research bias"),
        (MODULATION, "modulation"),
    ],
)
def test_the_variant_follows_from_the_keys(preset: str, kind: str) -> None:
    assert router_variant(weights_of(preset)).kind == kind


def test_published_weights_have_no_router() -> None:
    assert router_variant(published(PLAIN)).kind == "none"


@pytest.mark.parametrize(
    ("window", "said"),
    [(8, "windows of 8 x 8 cells (even, off centre: -3 to +4 cells)"), (9, "9 x 9 cells (odd, centred: -4 to +4")],
)
def test_windows_follow_from_the_offsets(window: int, said: str) -> None:
    variant = router_variant({**weights_of(BIAS), **bias_constants(window)})
    assert said in variant.description[1] and variant.description[1].endswith("equal in all cells")


def test_a_gaussian_window_is_recognised() -> None:
    gaussian = {**weights_of(BIAS), f"{GENERATOR}gaussian_weights": torch.rand(64)}
    assert router_variant(gaussian).description[1].endswith("Gaussian")


@pytest.mark.parametrize(
    ("stored", "used", "said"),
    [(3.7, 3.7, "used as it is"), (0.1, 0.5, "used as 0.5"), (8.0, 5.0, "used as 5"), (-1.0, 0.5, "used as 0.5")],
)
def test_the_scale_is_given_as_stored_and_as_used(stored: float, used: float, said: str) -> None:
    variant = router_variant({**weights_of(BIAS), **bias_constants(8, scale=stored)})
    assert variant.bias_scale == pytest.approx(stored) and variant.used_scale == pytest.approx(used)
    assert any(f"bias_scale {stored:g}, limited to 0.5..5.0: {said}" in line for line in variant.description)


def test_a_scale_that_is_no_number_is_not_usable() -> None:
    variant = router_variant({**weights_of(BIAS), **bias_constants(8, scale=float("nan"))})
    assert variant.used_scale is None and any("not usable" in line for line in variant.description)


def test_the_intermediate_version_is_told_by_its_scalar_scale() -> None:
    variant = router_variant(intermediate(weights_of(BIAS)))
    assert variant.kind == "intermediate bias" and variant.bias_scale == pytest.approx(3.7)
    assert "has no gaussian_weights" in variant.description[1]


@pytest.mark.parametrize(("preset", "sigma"), [(MODULATION, "7 x 7 cells: sigma 1"), (
    "aqr_cmt_voxel0075_vov_1600x640", "13 x 13 cells: sigma 2")])  # fmt: skip
def test_sigma_follows_from_the_size_of_the_kernel(preset: str, sigma: str) -> None:
    assert any(sigma in line for line in router_variant(weights_of(preset)).description)


def test_what_keys_do_not_tell_is_named() -> None:
    assert any("aqr.activation" in line for line in router_variant(weights_of(BIAS)).untold)
    assert any("aqr.residual" in line for line in router_variant(weights_of(MODULATION)).untold)
    assert router_variant(weights_of("aqr_tiny")).untold == ()


def test_parts_of_a_router_are_incomplete() -> None:
    weights = weights_of(MODULATION)
    router = {key: value for key, value in weights.items() if "weight_renderer" not in key}
    rest = {key: value for key, value in weights.items() if "aqr_weight_generator" not in key}
    assert router_variant(router).kind == router_variant(rest).kind == "incomplete"
