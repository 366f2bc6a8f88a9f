# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pretrained backbones in detection models."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from aqr_perception.models import build_model
from aqr_perception.models.bevformer.bevformer_options import BevFormerOptions
from aqr_perception.models.config.presets import Preset, load_preset
from aqr_perception.models.image.pretrained import load_backbone
from aqr_perception.models.image.resnet import ResNet
from aqr_perception.models.weights.checkpoint import CheckpointError, save_checkpoint


class WithBackbone(nn.Module):
    """Minimal model for `load_backbone`."""

    def __init__(self, backbone: nn.Module, preset: Preset) -> None:
        super().__init__()
        self.preset, self.img_backbone = preset, backbone


def resnet_model(preset: str = "aqr_tiny_sparse") -> WithBackbone:
    return WithBackbone(ResNet(18).eval(), load_preset(preset))


def torchvision_weights(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {**ResNet(18).state_dict(), "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


def dinov2_small() -> dict[str, Tensor]:
    """Return weights with the keys and shapes of the published dinov2_vits14."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, 384),
        "pos_embed": (1, 1 + 37 * 37, 384),
        "mask_token": (1, 384),
        "patch_embed.proj.weight": (384, 3, 14, 14),
        "patch_embed.proj.bias": (384,),
        "norm.weight": (384,),
        "norm.bias": (384,),
    }
    for block in range(12):
        shapes |= {f"blocks.{block}.norm{i}.{kind}": (384,) for i in (1, 2) for kind in ("weight", "bias")}
        shapes |= {f"blocks.{block}.ls{i}.gamma": (384,) for i in (1, 2)}
        for name, out, into in (("attn.qkv", 1152, 384), ("attn.proj", 384, 384), ("mlp.fc1", 1536, 384)):
            shapes |= {f"blocks.{block}.{name}.weight": (out, into), f"blocks.{block}.{name}.bias": (out,)}
        shapes |= {f"blocks.{block}.mlp.fc2.weight": (384, 1536), f"blocks.{block}.mlp.fc2.bias": (384,)}
    generator = torch.Generator().manual_seed(0)
    return {key: 0.02 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def test_the_published_dinov2_fits_the_small_preset(tmp_path: Path) -> None:
    model, weights = build_model("cmt_vit_small"), dinov2_small()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    torch.save(weights, tmp_path / "dinov2_vits14_pretrain.pth")
    assert load_backbone(model, tmp_path / "dinov2_vits14_pretrain.pth") == len(weights) - 1  # without the mask token
    vit = model.img_backbone.vit
    assert torch.equal(vit.blocks[7].attn.qkv.weight, weights["blocks.7.attn.qkv.weight"])
    assert torch.equal(vit.pos_embed, weights["pos_embed"][:, 1:])
    assert torch.equal(vit.cls_token, weights["cls_token"] + weights["pos_embed"][:, :1])
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == {key for key in before if key.startswith("img_backbone.vit.")}


def test_an_rgb_backbone_gives_the_same_features_for_bgr_images() -> None:
    model, weights, image = resnet_model(), torchvision_weights(), torch.randn(1, 3, 32, 64)
    trained = ResNet(18).eval()
    trained.load_state_dict({key: tensor for key, tensor in weights.items() if not key.startswith("fc.")})
    load_backbone(model, weights)
    with torch.inference_mode():
        for ours, theirs in zip(model.img_backbone(image.flip(1)), trained(image), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_an_rgb_model_keeps_the_channel_order_of_an_rgb_backbone() -> None:
    model, weights = resnet_model(), torchvision_weights()
    bevformer = dataclasses.replace(model.preset, architecture="bevformer", options=BevFormerOptions(rgb=True))
    model.preset = bevformer
    load_backbone(model, weights)
    assert torch.equal(model.img_backbone.conv1.weight, weights["conv1.weight"])


def test_the_backbone_of_a_detection_model_is_loaded_unchanged(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model, source = resnet_model(), resnet_model()
    save_checkpoint(source, tmp_path / "model.safetensors")
    assert load_backbone(model, tmp_path / "model.safetensors") == len(source.img_backbone.state_dict())
    assert torch.equal(model.img_backbone.conv1.weight, source.img_backbone.conv1.weight)


def test_weights_that_do_not_fit_are_listed_and_change_nothing() -> None:
    model, weights = resnet_model(), torchvision_weights(seed=3)
    before = model.img_backbone.conv1.weight.clone()
    weights["layer9.weight"] = weights.pop("layer4.1.conv2.weight")
    with pytest.raises(CheckpointError) as error:
        load_backbone(model, weights)
    listed = [line for line in str(error.value).splitlines() if line.startswith("  ")]
    assert listed == ["  missing: layer4.1.conv2.weight", "  surplus: layer9.weight"]
    assert torch.equal(model.img_backbone.conv1.weight, before)


def test_a_model_without_cameras_is_refused() -> None:
    model = WithBackbone(nn.Identity(), load_preset("cmt_lidar_voxel0075"))
    del model.img_backbone
    with pytest.raises(CheckpointError, match="'cmt_lidar_voxel0075' has no image backbone"):
        load_backbone(model, torchvision_weights())


@pytest.mark.parametrize(
    "others", [{}, {"neck.lateral_convs.0.conv.weight": torch.zeros(1)}, {"head.fc.bias": torch.zeros(9)}]
)
def test_the_backbone_of_a_detector_or_classifier_of_openmmlab_is_loaded(others: dict[str, Tensor]) -> None:
    plain, model = resnet_model(), resnet_model()
    weights = torchvision_weights()
    load_backbone(plain, weights)
    part = {f"backbone.{key}": tensor for key, tensor in weights.items() if not key.startswith("fc.")}
    load_backbone(model, {"state_dict": part | others})
    assert all(torch.equal(tensor, plain.state_dict()[key]) for key, tensor in model.state_dict().items())


def test_a_backbone_without_counters_of_batches_is_loaded() -> None:
    weights = {key: tensor for key, tensor in torchvision_weights().items() if "num_batches_tracked" not in key}
    assert load_backbone(resnet_model(), weights) == len(ResNet(18).state_dict())


@pytest.mark.parametrize("prefix", ["", "dinov2.", "vit."])
def test_the_names_of_transformers_are_named_with_the_libraries_that_fit(prefix: str) -> None:
    weights = {f"{prefix}embeddings.cls_token": torch.zeros(1, 1, 384)}
    weights[f"{prefix}encoder.layer.0.norm1.weight"] = torch.zeros(384)
    with pytest.raises(CheckpointError, match=r"names of transformers \(.*cls_token.*those of timm, DINOv2"):
        load_backbone(build_model("cmt_vit_small"), weights)
