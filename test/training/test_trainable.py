# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Trained and frozen parameters, and their batch norm statistics."""

import dataclasses
from collections.abc import Iterator, Mapping

import pytest
import torch
from helpers import stand_in
from torch import nn

from aqr_perception.models import build_model
from aqr_perception.models.cmt.model import CMT
from aqr_perception.options import OptionError
from aqr_perception.training.trainable import freeze, parameter_groups, set_mode
from aqr_perception.training.training_options import Trained


@pytest.fixture(scope="module")
def tiny() -> CMT:
    torch.manual_seed(0)
    model = build_model("aqr_tiny_sparse")
    assert isinstance(model, CMT)
    return model


def trained(model: nn.Module, train: Trained) -> set[str]:
    freeze(model, train)
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_branches_and_head_are_two_halves_of_the_model(tiny: CMT) -> None:
    branches, head = trained(tiny, "branches"), trained(tiny, "head")
    assert not branches & head
    assert branches | head == trained(tiny, "all")
    others = {name for name in head if not name.startswith(("pts_bbox_head.", "aqr."))}
    assert others and all("_content." in name or name.startswith("other_sensor.") for name in others), (
        "layers that read the proposals belong to the decoder"
    )


def test_the_sensors_branches_are_disjoint(tiny: CMT) -> None:
    camera, lidar = trained(tiny, "camera-branch"), trained(tiny, "lidar-branch")
    assert not camera & lidar
    assert camera | lidar == trained(tiny, "branches")
    assert any(name.startswith("img_backbone") for name in camera)


def test_proposals_of_bev_features_from_cameras_belong_to_the_head() -> None:
    model = build_model("bevformer_mini")
    head, branches = trained(model, "head"), trained(model, "branches")
    assert any(name.startswith("proposals.bev.") for name in head)
    assert branches and branches == trained(model, "camera-branch") and not branches & head
    with pytest.raises(OptionError, match="train is 'lidar-branch'"):
        freeze(model, "lidar-branch")


def test_training_a_branch_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(OptionError, match=r"train is 'lidar-branch'.*pts_"):
        freeze(build_model("petr_tiny"), "lidar-branch")


def test_the_router_belongs_to_the_head(tiny: CMT) -> None:
    router = trained(tiny, "aqr")
    assert router and router < trained(tiny, "head")


@pytest.mark.parametrize("train", ["all", "aqr", "branches", "camera-branch", "head"])
def test_batch_norm_statistics_are_updated_where_parameters_are_trained(tiny: CMT, train: Trained) -> None:
    updated = trained(tiny, train)
    set_mode(tiny, train)
    norms = {name: m for name, m in tiny.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)}
    assert norms
    for name, norm in norms.items():
        assert norm.training == (f"{name}.weight" in updated), name


def test_training_the_router_of_a_model_without_one_is_refused() -> None:
    with pytest.raises(OptionError, match=r"train is 'aqr'.*'aqr\.'"):
        freeze(nn.Linear(2, 2), "aqr")


FACTORS = {"img_backbone": 0.0, "img_backbone.layer4": 0.1, "shared_conv": 0.0, "transformer": 0.5, "aqr": 2.0}


@pytest.fixture
def with_factors(tiny: CMT) -> Iterator[CMT]:
    preset = tiny.preset
    tiny.preset = dataclasses.replace(preset, learning_rate_factors=FACTORS)
    yield tiny
    tiny.preset = preset


def expected_factor(name: str) -> float:
    if name.startswith("img_backbone."):
        return 0.1 if name.startswith("img_backbone.layer4.") else 0.0
    if name.startswith("pts_bbox_head.shared_conv."):
        return 0.0
    return 0.5 if name.startswith("pts_bbox_head.transformer.") else 2.0 if name.startswith("aqr.") else 1.0


def factors_in_groups(
    model: nn.Module, train: Trained, replaced: Mapping[str, float] | None = None
) -> dict[str, float]:
    freeze(model, train, replaced)
    options = stand_in.options(train=train, learning_rate_factors=replaced or {})
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, options)
    return {names[id(parameter)]: group["factor"] for group in groups for parameter in group["params"]}


@pytest.mark.parametrize("train", ["all", "aqr", "branches", "camera-branch", "head"])
def test_parts_are_trained_at_their_own_rates_and_not_at_all_with_factor_0(
    tiny: CMT, with_factors: CMT, train: Trained
) -> None:
    preset, tiny.preset = tiny.preset, dataclasses.replace(tiny.preset, learning_rate_factors={})
    everything = trained(tiny, train)
    tiny.preset = preset
    expected = {name: expected_factor(name) for name in everything if expected_factor(name) > 0}
    assert expected and factors_in_groups(with_factors, train) == expected
    assert trained(with_factors, train) == expected.keys()


def test_the_options_of_a_training_replace_the_presets_factors(with_factors: CMT) -> None:
    factors = factors_in_groups(with_factors, "all", {"transformer": 0.25, "img_backbone": 0.3, "task_heads": 0.0})
    assert factors["pts_bbox_head.transformer.decoder.post_norm.weight"] == 0.25
    assert factors["img_backbone.conv1.weight"] == 0.3 and factors["img_backbone.layer4.0.conv1.weight"] == 0.1
    assert not any("task_heads" in name for name in factors)
    assert {factor for name, factor in factors.items() if name.startswith("aqr.")} == {2.0}


def test_there_is_one_group_for_each_factor(with_factors: CMT) -> None:
    freeze(with_factors, "head")
    factors = [group["factor"] for group in parameter_groups(with_factors, stand_in.options())]
    assert sorted(factors) == [0.5, 1.0, 2.0]


def test_the_backbone_factor_multiplies_the_presets_factor(with_factors: CMT) -> None:
    freeze(with_factors, "all", {"img_backbone": 0.2})
    options = stand_in.options(backbone_factor=0.5, learning_rate_factors={"img_backbone": 0.2})
    factors = {group["factor"] for group in parameter_groups(with_factors, options)}
    assert factors == {0.5, 1.0, 2.0, 0.1, 0.05}


def test_a_backbone_factor_for_a_frozen_backbone_is_refused(tiny: CMT) -> None:
    factors = {"img_backbone": 0.0}
    freeze(tiny, "all", factors)
    with pytest.raises(OptionError, match=r"backbone_factor is 0\.1.*--learning-rate-factor img_backbone=0\.1"):
        parameter_groups(tiny, stand_in.options(backbone_factor=0.1, learning_rate_factors=factors))


def test_without_factors_the_groups_are_the_rest_and_then_the_backbone(tiny: CMT) -> None:
    freeze(tiny, "all")
    rest, backbone = parameter_groups(tiny, stand_in.options())
    assert (rest["factor"], backbone["factor"]) == (1.0, 1.0)
    named = list(tiny.named_parameters())
    for group, is_backbone in ((rest, False), (backbone, True)):
        needed = [parameter for name, parameter in named if name.startswith("img_backbone.") == is_backbone]
        assert [id(parameter) for parameter in group["params"]] == [id(parameter) for parameter in needed]


def test_batch_norm_statistics_are_frozen_with_their_part(with_factors: CMT) -> None:
    freeze(with_factors, "all")
    set_mode(with_factors, "all")
    norms = {name: m for name, m in with_factors.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)}
    assert {norm.training for norm in norms.values()} == {False, True}
    for name, norm in norms.items():
        assert norm.training == (expected_factor(f"{name}.weight") > 0), name
    assert not with_factors.img_backbone.layer1.training and with_factors.img_backbone.layer4.training
    assert with_factors.training


def test_a_part_without_a_parameter_is_refused_by_name(tiny: CMT) -> None:
    for part, hint in (
        ("image_backbone", "did you mean"),
        ("transform", "'transformer'"),
        ("wheels", "begin with img_backbone"),
    ):
        with pytest.raises(OptionError, match=rf"train: learning_rate_factors has the part '{part}'.*{hint}"):
            freeze(tiny, "all", {part: 0.5})
    preset = tiny.preset
    tiny.preset = dataclasses.replace(preset, learning_rate_factors={"neck": 0.5})
    try:
        with pytest.raises(OptionError, match="preset aqr_tiny_sparse: learning_rate_factors has the part 'neck'"):
            freeze(tiny, "all", {"img_neck": 0.5})
    finally:
        tiny.preset = preset


def test_factors_that_freeze_everything_trained_are_refused(tiny: CMT) -> None:
    with pytest.raises(OptionError, match="train is 'aqr', but learning_rate_factors are 0"):
        freeze(tiny, "aqr", {"aqr": 0.0})
