"""What is frozen stays as it is, statistics included; what is trained moves."""

import pytest
import torch
from torch import nn

from aqr_perception.models import build_model
from aqr_perception.models.cmt import CMT
from aqr_perception.options import OptionError
from aqr_perception.training.options import Trained
from aqr_perception.training.trainable import freeze, set_mode


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
    assert {name.split(".")[0] for name in head} == {"pts_bbox_head", "aqr"}


def test_the_router_is_a_part_of_the_head(tiny: CMT) -> None:
    router = trained(tiny, "aqr")
    assert router and router < trained(tiny, "head")


@pytest.mark.parametrize("train", ["all", "aqr", "branches", "head"])
def test_statistics_move_where_parameters_do(tiny: CMT, train: Trained) -> None:
    moving = trained(tiny, train)
    set_mode(tiny, train)
    norms = {name: m for name, m in tiny.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)}
    assert norms
    for name, norm in norms.items():
        assert norm.training == (f"{name}.weight" in moving), name


def test_a_model_without_a_router_cannot_train_it() -> None:
    with pytest.raises(OptionError, match=r"train is 'aqr'.*'aqr\.'"):
        freeze(nn.Linear(2, 2), "aqr")
