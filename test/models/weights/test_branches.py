"""Branches of one model in another."""

import pytest
import torch
from torch import nn

from aqr_perception.models import build_model
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.weights.branches import load_branches
from aqr_perception.models.weights.checkpoint import CheckpointError

PICTURES = torch.randn(1, 2, 3, 128, 352, generator=torch.Generator().manual_seed(0))


def model_of(name: str) -> DetectionModel:
    """Return a model whose batch norms know something, so that they count as learned."""
    model = build_model(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def giver() -> DetectionModel:
    torch.manual_seed(1)
    return model_of("aqr_tiny")


@torch.inference_mode()
@pytest.mark.parametrize("name", ["petr_tiny", "petrv2_tiny", "bevformer_mini"])
def test_what_the_pictures_propose_is_the_same_whatever_the_head(giver: DetectionModel, name: str) -> None:
    torch.manual_seed(2)
    taker = model_of(name)
    head = {key: value.clone() for key, value in taker.state_dict().items() if key.startswith("pts_bbox_head.")}
    assert load_branches(taker, giver.state_dict()) > 100
    maps = []
    for model in (giver, taker):
        proposed = model.propose(model.features(PICTURES, torch.eye(4).repeat(1, 2, 1, 1), None))
        assert proposed is not None and proposed.image is not None
        maps.append(proposed.image)
    torch.testing.assert_close(*maps)
    for key, value in head.items():
        torch.testing.assert_close(taker.state_dict()[key], value)


def test_a_birds_eye_view_of_the_cameras_takes_nothing_from_the_lidars(giver: DetectionModel) -> None:
    taker = model_of("bevformer_mini")
    before = {key: value.clone() for key, value in taker.state_dict().items() if key.startswith("proposals.bev.")}
    load_branches(taker, giver.state_dict())
    assert before
    for key, value in before.items():
        assert torch.equal(taker.state_dict()[key], value)


def test_the_whole_of_both_branches_comes_from_a_model_of_the_same_preset(giver: DetectionModel) -> None:
    torch.manual_seed(3)
    taker = model_of("aqr_tiny")
    load_branches(taker, giver.state_dict())
    same = {key for key, value in taker.state_dict().items() if torch.equal(value, giver.state_dict()[key])}
    branches = ("img_backbone.", "img_neck.", "pts_", "proposals.image.", "proposals.bev.")
    assert {key for key in giver.state_dict() if key.startswith(branches) and "bbox_head" not in key} <= same


def test_sparse_kernels_may_be_stored_as_spconv_1_has_them(giver: DetectionModel) -> None:
    torch.manual_seed(4)
    taker = model_of("aqr_tiny")
    stored = {
        key: value.permute(1, 2, 3, 4, 0) if value.dim() == 5 else value for key, value in giver.state_dict().items()
    }
    load_branches(taker, stored)
    kernels = [key for key, value in giver.state_dict().items() if value.dim() == 5]
    assert kernels
    for key in kernels:
        torch.testing.assert_close(taker.state_dict()[key], giver.state_dict()[key])


def test_branches_of_another_size_are_refused_and_nothing_is_loaded(giver: DetectionModel) -> None:
    taker = model_of("petr_tiny")
    before = {key: value.clone() for key, value in taker.state_dict().items()}
    narrow = {key: value[:1] if key.endswith("conv1.weight") else value for key, value in giver.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"img_backbone\.conv1\.weight.*another size|another size[\s\S]*conv1"):
        load_branches(taker, narrow)
    for key, value in before.items():
        assert torch.equal(taker.state_dict()[key], value)


def test_weights_without_branches_are_named(giver: DetectionModel) -> None:
    with pytest.raises(CheckpointError, match="none of the model's branches"):
        load_branches(giver, {"aqr.bev.weight": torch.zeros(1)})
