# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Exponential moving average of a model's weights."""

import torch
from helpers import stand_in
from torch import Tensor, nn

from aqr_perception.data.batch import Batch
from aqr_perception.models import build_model
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.model_io import DecodeOptions
from aqr_perception.training.ema import average_state, averaged_model, load_average_state
from aqr_perception.training.history import features_of


def change(model: nn.Module) -> None:
    """Add 1 to all weights and statistics."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)


def test_the_average_is_the_weighted_mean_of_all_weights_so_far() -> None:
    model = stand_in.model()
    average = averaged_model(model, decay=0.5)
    expected = model.head.weight.detach().clone()
    for update in range(20):
        change(model)
        average.update_parameters(model)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = torch.lerp(expected, model.head.weight.detach(), 1.0 - decay)
    assert torch.equal(average.module.head.weight, expected)


def test_statistics_are_copied_not_averaged() -> None:
    model = stand_in.model()
    average = averaged_model(model, decay=0.999)
    for _ in range(3):
        change(model)
        average.update_parameters(model)
    assert torch.equal(average.module.norm.running_mean, model.norm.running_mean)
    assert torch.equal(average.module.norm.num_batches_tracked, model.norm.num_batches_tracked)
    assert not torch.equal(average.module.head.weight, model.head.weight)


def test_the_average_is_evaluated_without_touching_the_model_in_training() -> None:
    model = stand_in.model()
    average = averaged_model(model, decay=0.9)
    assert model.training and model.head.weight.requires_grad
    assert not any(module.training for module in average.module.modules())
    assert not any(parameter.requires_grad for parameter in average.module.parameters())


def boxes(model: nn.Module, batch: Batch) -> Tensor:
    assert isinstance(model, DetectionModel)
    with torch.inference_mode():
        return model.decode(features_of(model, batch), DecodeOptions(model.aqr_options)).predictions.boxes


def test_a_detection_models_average_detects_with_its_present_weights_after_each_update() -> None:
    """Models keep constants that they derive from their weights between frames; an update must renew them."""
    model = build_model("petr_tiny")
    average = averaged_model(model, decay=0.5)
    width, height = model.preset.image.size
    images, projection = torch.rand(1, 1, 3, height, width), torch.eye(4)[None, None]
    batch = Batch(images, projection, None, [], [], [], [], torch.zeros(0), torch.zeros(0))
    for _ in range(2):
        before = boxes(average.module, batch)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
        average.update_parameters(model)
        expected = build_model("petr_tiny").eval()
        expected.load_state_dict(average.module.state_dict())
        assert torch.equal(boxes(average.module, batch), boxes(expected, batch))
        assert not torch.equal(boxes(average.module, batch), before)


def test_an_average_survives_saving_and_loading() -> None:
    model = stand_in.model()
    average, loaded = (averaged_model(stand_in.model(), decay=0.9) for _ in range(2))
    for _ in range(3):
        change(model)
        average.update_parameters(model)
    state = average_state(average)
    assert state["updates"] == 3 and state["average"].keys() == model.state_dict().keys()
    load_average_state(loaded, state)
    change(model)
    average.update_parameters(model)
    loaded.update_parameters(model)
    assert stand_in.differences(average_state(loaded), average_state(average)) == []
