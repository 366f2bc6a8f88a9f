# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parts of a model by components of its parameters' names."""

import pytest
from torch import nn

from aqr_perception.training.part_factors import PartFactors

WEIGHT = "pts_bbox_head.transformer.decoder.layers.0.norms.1.weight"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, 1.0),
        ({"transformer": 0.5}, 0.5),
        ({"pts_bbox_head": 0.5}, 0.5),
        ({WEIGHT: 0.5}, 0.5),
        ({"layers.0": 0.5}, 0.5),
        ({"transform": 0.5}, 1.0),
        ({"former": 0.5}, 1.0),
        ({"decoder.layer": 0.5}, 1.0),
        ({"pts_bbox_head.decoder": 0.5}, 1.0),
        ({"pts_bbox_head": 0.1, "transformer": 0.5}, 0.5),
        ({"transformer": 0.5, "pts_bbox_head": 0.1}, 0.5),
        ({"pts_bbox_head": 0.1, "pts_bbox_head.transformer": 0.5}, 0.5),
        ({"pts_bbox_head.transformer": 0.5, "transformer": 0.1}, 0.5),
        ({"transformer": 0.1, "norms": 0.0}, 0.0),
    ],
)
def test_the_part_that_reaches_furthest_into_the_name_counts(parts: dict[str, float], expected: float) -> None:
    assert PartFactors(parts).of(WEIGHT) == expected


def test_a_scale_of_its_own_beats_its_generator_in_either_spelling() -> None:
    name = "pts_bbox_head.attention_bias_generator.bias_scale"
    for scale in ("bias_scale", "attention_bias_generator.bias_scale"):
        assert PartFactors({"attention_bias_generator": 1.0, scale: 0.5}).of(name) == 0.5


def test_a_module_is_frozen_if_all_of_its_parameters_are() -> None:
    block = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    assert PartFactors({"0": 0.0, "1": 0.0}).freezes("", block)
    assert not PartFactors({"0": 0.0}).freezes("", block)
    assert not PartFactors({"block.1.bias": 0.0}).freezes("block.1", block[1])
    assert PartFactors({"block": 0.0}).freezes("block.2", block[2])
    assert not PartFactors({"other": 0.0}).freezes("block.2", block[2])
