# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Transfer of sensor branches between models."""

import pytest
import torch
from torch import nn

from aqr_perception.models import build_model
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.weights.branches import load_branches
from aqr_perception.models.weights.checkpoint import CheckpointError

PICTURES = torch.randn(1, 2, 3, 128, 352, generator=torch.Generator().manual_seed(0))


def model_of(name: str) -> DetectionModel:
    """Return a model with non-trivial batch norm statistics."""
    model = build_model(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def source() -> DetectionModel:
    torch.manual_seed(1)
    return model_of("aqr_tiny_sparse")


@torch.inference_mode()
@pytest.mark.parametrize("name", ["petr_tiny", "petrv2_tiny", "bevformer_mini"])
def test_camera_proposals_are_the_same_under_every_head(source: DetectionModel, name: str) -> None:
    torch.manual_seed(2)
    target = model_of(name)
    head = {key: value.clone() for key, value in target.state_dict().items() if key.startswith("pts_bbox_head.")}
    assert load_branches(target, source.state_dict()) > 100
    maps = []
    for model in (source, target):
        proposed = model.propose(model.features(PICTURES, torch.eye(4).repeat(1, 2, 1, 1), None))
        assert proposed is not None and proposed.image is not None
        maps.append(proposed.image)
    torch.testing.assert_close(*maps)
    for key, value in head.items():
        torch.testing.assert_close(target.state_dict()[key], value)


def test_a_camera_model_takes_nothing_from_the_lidar_branch(source: DetectionModel) -> None:
    target = model_of("bevformer_mini")
    before = {key: value.clone() for key, value in target.state_dict().items() if key.startswith("proposals.bev.")}
    load_branches(target, source.state_dict())
    assert before
    for key, value in before.items():
        assert torch.equal(target.state_dict()[key], value)


def test_a_model_of_the_same_preset_gets_both_branches_completely(source: DetectionModel) -> None:
    torch.manual_seed(3)
    target = model_of("aqr_tiny_sparse")
    load_branches(target, source.state_dict())
    same = {key for key, value in target.state_dict().items() if torch.equal(value, source.state_dict()[key])}
    branches = ("img_backbone.", "img_neck.", "pts_", "proposals.image.", "proposals.bev.")
    assert {key for key in source.state_dict() if key.startswith(branches) and "bbox_head" not in key} <= same


def test_sparse_kernels_in_spconv_1s_layout_are_converted(source: DetectionModel) -> None:
    torch.manual_seed(4)
    target = model_of("aqr_tiny_sparse")
    stored = {
        key: value.permute(1, 2, 3, 4, 0) if value.dim() == 5 else value for key, value in source.state_dict().items()
    }
    load_branches(target, stored)
    kernels = [key for key, value in source.state_dict().items() if value.dim() == 5]
    assert kernels
    for key in kernels:
        torch.testing.assert_close(target.state_dict()[key], source.state_dict()[key])


def test_branches_of_another_size_are_refused_and_nothing_is_loaded(source: DetectionModel) -> None:
    target = model_of("petr_tiny")
    before = {key: value.clone() for key, value in target.state_dict().items()}
    narrow = {key: value[:1] if key.endswith("conv1.weight") else value for key, value in source.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"img_backbone\.conv1\.weight.*another size|another size[\s\S]*conv1"):
        load_branches(target, narrow)
    for key, value in before.items():
        assert torch.equal(target.state_dict()[key], value)


def test_weights_without_branches_are_refused(source: DetectionModel) -> None:
    with pytest.raises(CheckpointError, match="none of the model's branches"):
        load_branches(source, {"aqr.bev.weight": torch.zeros(1)})
