# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Models with their own class list: outputs, checkpoints and the transfer of branches."""

import logging
from pathlib import Path

import pytest
import torch
from helpers.own_classes import OWN, write_preset

from aqr_perception.frame import CLASSES
from aqr_perception.models import build_model, load_checkpoint
from aqr_perception.models.weights.branches import load_branches
from aqr_perception.models.weights.checkpoint import CheckpointError, save_checkpoint

SMALL_MOME = {
    "point_range": [-12.8, -12.8, -5.0, 12.8, 12.8, 3.0],
    "image": {"size": [96, 64], "backbone": "resnet18", "width": 8},
    "points": {
        "voxel_size": [0.4, 0.4, 0.25],
        "grid": [64, 64, 32],
        "encoder_channels": [8, 8, 8, 8],
        "encoder_output": 8,
        "backbone_channels": [8, 8],
        "backbone_layers": [1, 1],
        "neck_channels": 8,
    },
    "decoder": {"channels": 32, "queries": 60, "layers": 3, "heads": 4, "feedforward": 32, "depths": 8},
}


@pytest.fixture
def preset(tmp_path: Path) -> str:
    return write_preset(tmp_path)


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        ("aqr_tiny_sparse", {}),
        ("petr_tiny", {}),
        ("petrv2_tiny", {}),
        ("bevformer_mini", {}),
        ("mome_voxel0075_vov_1600x640", SMALL_MOME),
    ],
)
@torch.inference_mode()
def test_every_architecture_predicts_the_presets_classes(tmp_path: Path, base: str, changes: dict[str, object]) -> None:
    model = build_model(write_preset(tmp_path, base, **changes))
    image = model.preset.image
    assert image is not None
    width, height = image.size
    points = None if model.preset.points is None else [torch.rand(200, 5) * 10]
    predictions = model(torch.randn(1, 2, 3, height, width), torch.eye(4).repeat(1, 2, 1, 1), points)
    assert predictions.class_logits.shape[-1] == len(OWN) and predictions.boxes.shape[-1] == 10
    assert model.class_count(model.state_dict()) == len(OWN)
    assert model.class_count({}) is None


def test_weights_come_back_with_their_class_names(tmp_path: Path, preset: str) -> None:
    model, again = build_model(preset), build_model(preset)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    save_checkpoint(model, tmp_path / "own.safetensors")
    load_checkpoint(again, tmp_path / "own.safetensors")
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


@pytest.mark.parametrize("base", ["aqr_tiny_sparse", "petr_tiny", "bevformer_mini"])
def test_another_number_of_classes_is_refused_with_one_sentence(tmp_path: Path, base: str) -> None:
    published, own = build_model(base), build_model(write_preset(tmp_path, base))
    before = {key: value.clone() for key, value in own.state_dict().items()}
    path = tmp_path / "published.pth"
    torch.save({"state_dict": published.state_dict()}, path)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(own, path)
    message = str(caught.value)
    assert message.startswith(f"{path}: has 10 classes, but the model's preset has 4 (car, truck, ")
    assert "entry 'classes'" in message and "other weights" in message and "\n" not in message
    assert all(torch.equal(value, before[key]) for key, value in own.state_dict().items())
    save_checkpoint(own, tmp_path / "own.safetensors")
    with pytest.raises(CheckpointError, match=r"has 4 classes \(car, truck, pedestrian, forklift\).* has 10 \(car, "):
        load_checkpoint(published, tmp_path / "own.safetensors")


def test_the_number_of_classes_is_found_in_a_file_of_another_depth(tmp_path: Path, preset: str) -> None:
    deeper = build_model("cmt_voxel0100_r50_800x320")
    assert deeper.preset.decoder.layers > build_model(preset).preset.decoder.layers
    with pytest.raises(CheckpointError, match=r"has 10 classes, but .* has 4 "):
        load_checkpoint(build_model(preset), deeper.state_dict())


@pytest.mark.parametrize(
    "classes", [("truck", "car", "pedestrian", "forklift"), ("car", "truck", "pedestrian", "crane")]
)
def test_as_many_classes_of_other_names_or_in_another_order_are_refused(
    tmp_path: Path, preset: str, classes: tuple[str, ...]
) -> None:
    path = tmp_path / "own.safetensors"
    save_checkpoint(build_model(preset), path)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(build_model(write_preset(tmp_path, classes=classes)), path)
    message = str(caught.value)
    assert f"{path}: was trained with the classes {', '.join(OWN)}, but" in message and ", ".join(classes) in message
    assert "\n" not in message


def test_a_file_without_class_names_loads_by_its_shapes(tmp_path: Path, preset: str) -> None:
    torch.save(build_model(preset).state_dict(), tmp_path / "old.pth")
    load_checkpoint(build_model(preset), tmp_path / "old.pth")


@pytest.mark.parametrize("names_known", [True, False])
def test_branches_transfer_to_a_model_of_other_classes_without_the_heat_maps(
    tmp_path: Path, preset: str, caplog: pytest.LogCaptureFixture, names_known: bool
) -> None:
    source, target = build_model("aqr_tiny_sparse"), build_model(preset)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(0.01)
    save_checkpoint(source, tmp_path / "source.safetensors")
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        load_branches(target, tmp_path / "source.safetensors" if names_known else source.state_dict())
    (record,) = caplog.records
    assert "heat maps are left out" in record.message and "proposals.bev.2.bias" in record.message
    after, given = target.state_dict(), source.state_dict()
    for key in ("proposals.bev.2.weight", "proposals.image.2.bias", "pts_bbox_head.reference_points.weight"):
        assert torch.equal(after[key], before[key]), key
    for key in ("proposals.bev.0.weight", "proposals.image.0.weight", "img_backbone.conv1.weight"):
        assert torch.equal(after[key], given[key]), key


def test_heat_maps_of_as_many_other_classes_are_left_out(
    tmp_path: Path, preset: str, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = build_model(preset), build_model(write_preset(tmp_path, classes=OWN[::-1]))
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(0.01)
    save_checkpoint(source, tmp_path / "source.safetensors")
    with caplog.at_level(logging.WARNING):
        load_branches(target, tmp_path / "source.safetensors")
    key = "proposals.bev.2.bias"
    assert key in caplog.text and not torch.equal(target.state_dict()[key], source.state_dict()[key])
    caplog.clear()
    load_branches(build_model(preset), tmp_path / "source.safetensors")
    assert not caplog.records


def test_presets_have_nuscenes_classes_unless_they_list_others() -> None:
    assert build_model("petr_tiny").classes == CLASSES
