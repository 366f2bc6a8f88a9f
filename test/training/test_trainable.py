"""Trained and frozen parameters, and their batch norm statistics."""

import pytest
import torch
from torch import nn

from aqr_perception.models import build_model
from aqr_perception.models.cmt.model import CMT
from aqr_perception.options import OptionError
from aqr_perception.training.trainable import freeze, set_mode
from aqr_perception.training.training_options import Trained


@pytest.fixture(scope="module")
def tiny() -> CMT:
    torch.manual_seed(0)
    model = build_model("aqr_tiny")
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
    assert others and all("_content." in name for name in others), (
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
