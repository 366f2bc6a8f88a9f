# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0: the pretrained file's layout, TensorFlow's padding, and stages that do not disturb each other."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from helpers.small_fusion import SMALL, write_preset
from torch import Tensor, nn

from aqr_perception.models import build_model
from aqr_perception.models.image.efficientnet_lite import EfficientNetLite
from aqr_perception.models.image.pretrained import load_backbone
from aqr_perception.models.weights.checkpoint import CheckpointError

CLASSIFIER = {"_conv_head.weight": (1280, 320, 1, 1), "_fc.weight": (1000, 1280), "_fc.bias": (1000,)}
BLOCKS = [(16, 3)] + 2 * [(24, 3)] + 2 * [(40, 5)] + 3 * [(80, 3)] + 3 * [(112, 5)] + 4 * [(192, 5)] + [(320, 3)]
"""Channels and kernel of the 16 blocks, as in the pretrained file."""


def file_layout() -> dict[str, tuple[int, ...]]:
    """Return the keys and shapes of the published file (efficientnet-lite0-57934424.pth)."""
    shapes: dict[str, tuple[int, ...]] = {"_conv_stem.weight": (32, 3, 3, 3), **_norm("_bn0", 32)}
    channels = 32
    for index, (out, kernel) in enumerate(BLOCKS):
        prefix, hidden = f"_blocks.{index}.", channels * (6 if index else 1)
        if index:
            shapes |= {f"{prefix}_expand_conv.weight": (hidden, channels, 1, 1), **_norm(f"{prefix}_bn0", hidden)}
        shapes |= {f"{prefix}_depthwise_conv.weight": (hidden, 1, kernel, kernel), **_norm(f"{prefix}_bn1", hidden)}
        shapes |= {f"{prefix}_project_conv.weight": (out, hidden, 1, 1), **_norm(f"{prefix}_bn2", out)}
        channels = out
    return {**shapes, **CLASSIFIER, **_norm("_bn1", 1280)}


def _norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    vectors = {f"{name}.{kind}": (channels,) for kind in ("weight", "bias", "running_mean", "running_var")}
    return {**vectors, f"{name}.num_batches_tracked": ()}


def random_network(*stages: int) -> EfficientNetLite:
    torch.manual_seed(0)
    network = EfficientNetLite(stages)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_mean = 0.1 * torch.randn(module.num_features)
    return network.eval()


def test_the_whole_network_has_the_files_keys_and_shapes() -> None:
    expected = {
        key: shape for key, shape in file_layout().items() if not key.startswith(("_fc.", "_conv_head.", "_bn1."))
    }
    assert len(file_layout()) == 296
    found = EfficientNetLite((4,)).state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in found.items()} == expected


@pytest.mark.parametrize(("size", "expected"), [((64, 96), (4, 6)), ((50, 70), (4, 5))])
def test_each_stage_has_half_the_size_rounded_up(size: tuple[int, int], expected: tuple[int, int]) -> None:
    with torch.no_grad():
        maps = random_network(1, 2, 3, 4)(torch.randn(2, 3, *size))
    assert [one.shape[1] for one in maps] == [24, 40, 112, 320]
    assert tuple(maps[2].shape[2:]) == expected
    for finer, coarser in pairwise(maps):
        assert all(-(-f // 2) == c for f, c in zip(finer.shape[2:], coarser.shape[2:], strict=True))


def test_a_picture_of_even_size_is_padded_below_and_on_the_right() -> None:
    network = random_network(1)
    images = torch.randn(1, 3, 8, 8)
    stems: list[Tensor] = []
    network._conv_stem.register_forward_hook(lambda module, inputs, output: stems.append(inputs[0]))
    network(images)  # with gradients the modules run one by one
    assert stems[0].shape == (1, 3, 9, 9)
    assert torch.equal(stems[0][:, :, :8, :8], images) and not stems[0][:, :, 8].any() and not stems[0][..., 8].any()


def test_fused_inference_equals_the_modules_one_by_one() -> None:
    network, images = random_network(1, 2, 3, 4), torch.randn(3, 3, 64, 96)
    expected = network(images)
    with torch.no_grad():
        for one, other in zip(network(images), expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_a_returned_map_does_not_change_when_later_stages_run() -> None:
    images = torch.randn(1, 3, 64, 64)
    together, network = random_network(1, 2, 3, 4)(images), random_network(1, 2, 3, 4)
    for index, stage in enumerate((1, 2, 3, 4)):
        alone = EfficientNetLite((stage,)).eval()
        weights = network.state_dict()
        alone.load_state_dict({key: weights[key] for key in alone.state_dict()})
        torch.testing.assert_close(alone(images)[0], together[index], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stride", [8, 16])
def test_the_published_file_fits_a_preset_and_its_channels_become_bgr(tmp_path: Path, stride: int) -> None:
    image = {"size": [160, 64], "backbone": "efficientnet_lite0", "stride": stride}
    model = build_model(write_preset(tmp_path, {**SMALL, "image": image}))
    generator = torch.Generator().manual_seed(0)
    weights = {
        key: torch.rand(shape, generator=generator) if shape else torch.tensor(7)
        for key, shape in file_layout().items()
    }
    load_backbone(model, weights)
    first = model.get_parameter("img_backbone._conv_stem.weight")
    assert torch.equal(first, weights["_conv_stem.weight"].flip(1))
    del weights["_blocks.3._bn1.bias"]
    with pytest.raises(CheckpointError, match=r"_blocks\.3\._bn1\.bias"):
        load_backbone(model, weights)


def test_stages_are_ascending() -> None:
    with pytest.raises(ValueError, match="ascending stages"):
        EfficientNetLite((4, 3))
