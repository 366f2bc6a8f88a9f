# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The prediction heads against the published layout: one grouped convolution over queries for all decoder layers."""

import json

import pytest
import torch
import torch.nn.functional as F
from helpers.places import REFERENCE
from torch import Tensor

from aqr_perception.models.boxes.task_heads import TaskHeads

CHECKPOINTS = REFERENCE / "checkpoints"
RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)


def heads(kernel_size: int = 1, layers: int = 3) -> TaskHeads:
    module = TaskHeads(16, classes=4, layers=layers, point_range=RANGE, kernel_size=kernel_size)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def grouped(state: dict[str, Tensor], name: str, decoder_outputs: Tensor) -> Tensor:
    """Return the published formulation: one grouped convolution of all layers' channels along the queries."""
    layers, batch, queries, _ = decoder_outputs.shape
    features = decoder_outputs.permute(1, 0, 3, 2).flatten(1, 2)
    weight = state[f"0.{name}.0.weight"]
    padding = weight.shape[2] // 2
    hidden = F.conv1d(features, weight, padding=padding, groups=layers).unflatten(1, (layers, -1))
    centred = hidden - hidden.mean(2, keepdim=True)
    hidden = (centred / (centred.square().mean(2, keepdim=True) + 1e-6).sqrt()).flatten(1, 2)
    hidden = (hidden * state[f"0.{name}.1.weight"][:, None] + state[f"0.{name}.1.bias"][:, None]).relu()
    last, bias = state[f"0.{name}.3.weight"], state[f"0.{name}.3.bias"]
    outputs = F.conv1d(hidden, last, bias, padding=padding, groups=layers)
    return outputs.reshape(batch, layers, -1, queries).permute(1, 0, 3, 2)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_predictions_equal_the_published_formulation(kernel_size: int) -> None:
    module = heads(kernel_size)
    decoder_outputs, reference = torch.randn(3, 2, 11, 16), torch.rand(2, 11, 3)
    logits, boxes = module(decoder_outputs, reference)
    raw = {name: grouped(module.state_dict(), name, decoder_outputs) for name in module[0]}
    torch.testing.assert_close(logits, raw["cls_logits"], atol=1e-5, rtol=1e-4)
    odds = (reference / (1 - reference)).log()
    expected = [
        (raw["center"] + odds[..., :2]).sigmoid() * 108 - 54,
        (raw["height"] + odds[..., 2:]).sigmoid() * 8 - 5,
        raw["dim"],
        raw["rot"],
        raw["vel"],
    ]
    torch.testing.assert_close(boxes, torch.cat(expected, dim=-1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("layers", [slice(-1, None), slice(0, 2), slice(1, 2)])
def test_predictions_for_some_layers_are_bitwise_those_for_all_layers(kernel_size: int, layers: slice) -> None:
    module, decoder_outputs, reference = heads(kernel_size), torch.randn(3, 2, 11, 16), torch.rand(2, 11, 3)
    with torch.inference_mode():
        for chosen, full in zip(
            module(decoder_outputs, reference, layers=layers), module(decoder_outputs, reference), strict=True
        ):
            assert torch.equal(chosen, full[layers])


def test_centres_start_at_the_reference_points_and_scores_at_ten_percent() -> None:
    module = TaskHeads(16, classes=4, layers=1, point_range=RANGE)
    for name, head in module[0].items():
        torch.nn.init.zeros_(head[3].weight)
        if name != "cls_logits":
            torch.nn.init.zeros_(head[3].bias)
    reference = torch.rand(1, 5, 3)
    logits, boxes = module(torch.randn(1, 1, 5, 16), reference)
    torch.testing.assert_close(boxes[0, ..., :2], reference[..., :2] * 108 - 54, atol=1e-2, rtol=0)
    torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, 0.1), atol=1e-3, rtol=0)


def test_reference_points_on_the_border_give_finite_boxes_and_gradients() -> None:
    module, decoder_outputs = heads(layers=1), torch.randn(1, 1, 2, 16, requires_grad=True)
    _, boxes = module(decoder_outputs, torch.tensor([[[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]]))
    boxes.sum().backward()
    assert boxes.isfinite().all() and decoder_outputs.grad.isfinite().all()


def test_the_parameters_of_every_layer_get_gradients() -> None:
    module = heads()
    logits, boxes = module(torch.randn(3, 1, 5, 16), torch.rand(1, 5, 3))
    (logits.square().sum() + boxes.square().sum()).backward()
    for parameter in module.parameters():
        by_layer = parameter.grad.unflatten(0, (3, -1)).flatten(1).abs().sum(1)
        assert (by_layer > 0).all()


def test_half_precision_queries_and_autocast_give_fp32_boxes() -> None:
    module, decoder_outputs, reference = heads(), torch.randn(3, 1, 5, 16).bfloat16(), torch.rand(1, 5, 3)
    _, expected = module(decoder_outputs.float(), reference)
    with torch.autocast("cpu", torch.bfloat16):
        _, boxes = module(decoder_outputs, reference)
    assert torch.equal(boxes, expected)


@pytest.mark.parametrize(
    ("name", "kernel_size"),
    [
        ("cmt_voxel0100_r50_800x320", 1),
        ("cmt_voxel0075_vov_1600x640", 1),
        ("cmt_camera_vov_1600x640", 1),
        ("cmt_lidar_voxel0075", 3),
    ],
)
def test_keys_and_shapes_are_the_published_ones(name: str, kernel_size: int) -> None:
    path = CHECKPOINTS / f"{name}.keys.json"
    if not path.exists():
        pytest.skip(f"the published keys are not here: {path} is absent")
    prefix = "pts_bbox_head.task_heads."
    published = json.loads(path.read_text())
    expected = {key.removeprefix(prefix): tuple(shape) for key, (shape, _) in published.items() if prefix in key}
    module = TaskHeads(kernel_size=kernel_size)
    assert {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()} == expected
