# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Training of MoME's router from the health of the sensors, with and without the rest of the model."""

from collections.abc import Callable

import pytest
import torch

from aqr_perception.data.batch import Batch
from aqr_perception.data.health import HEALTH_GRID
from aqr_perception.models.model_io import DecodeOptions
from aqr_perception.models.mome.model import MoME
from aqr_perception.training.losses.detection_loss import DetectionLoss
from aqr_perception.training.trainable import freeze, set_mode

ROUTER = ("pts_bbox_head.transformer.encoder.", "pts_bbox_head.transformer.selected_cls.")


@pytest.fixture
def batch(sensed) -> Batch:
    """Two samples with an object each; the cameras are blind, in the second sample the LiDAR is."""
    box = torch.tensor([[5.0, 1.0, -1.0, 4.0, 2.0, 1.5, 0.3, 1.0, 0.0]])
    lidar = torch.stack((torch.ones(16, 16), torch.zeros(16, 16)))
    cameras = torch.stack((torch.zeros(3, *HEALTH_GRID), torch.ones(3, *HEALTH_GRID)))
    images = sensed.images[:2].clone()
    images[0] = -2.0
    clouds = [sensed.points[0], sensed.points[1][:20]]
    labels = [torch.tensor([0]), torch.tensor([8])]
    counts, shown = [torch.tensor([9])] * 2, [torch.ones(1, 3)] * 2
    return Batch(images, sensed.lidar_to_image[:2], clouds, [box, box], labels, counts, shown, lidar, cameras)


def test_train_aqr_trains_only_the_router(new_model: Callable[[], MoME], batch: Batch) -> None:
    model = new_model()
    freeze(model, "aqr")
    set_mode(model, "aqr")
    assert not model.img_backbone.training and model.pts_bbox_head.transformer.encoder.training
    losses = DetectionLoss()(model, batch, torch.Generator().manual_seed(0))
    torch.stack(list(losses.values())).sum().backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == {name for name, _ in model.named_parameters() if name.startswith(ROUTER)}
    assert all(parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)


def test_gradients_reach_every_branch_and_expert(new_model: Callable[[], MoME], batch: Batch) -> None:
    model = new_model().train()
    losses = DetectionLoss()(model, batch, torch.Generator().manual_seed(0))
    torch.stack(list(losses.values())).sum().backward()
    silent = {
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    }
    # The first layer's queries attend to each other while they are still zero.
    first = ("decoder.layers.0.attentions.0", "decoder.layers.0.norms.0")
    assert [name for name in silent if not any(part in name for part in first)] == []


@pytest.mark.slow
def test_the_router_learns_which_sensor_is_blind(new_model: Callable[[], MoME], batch: Batch) -> None:
    model = new_model()
    freeze(model, "aqr")
    set_mode(model, "aqr")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    with torch.no_grad():
        image, bev = model.image_features(batch.images), model.bev_features(batch.points)
    model.image_features, model.bev_features = (lambda _: image), (lambda _: bev)  # type: ignore[method-assign]
    loss = DetectionLoss(denoising=0)
    history = []
    for _ in range(25):
        losses = loss(model, batch, torch.Generator().manual_seed(0))
        history.append(losses["router"].item())
        optimizer.zero_grad()
        losses["router"].backward()
        optimizer.step()
    assert history[-1] < 0.5 * history[0]
    with torch.no_grad():
        features = model.features(batch.images, batch.lidar_to_image, batch.points)
        weights = model.decode(features, DecodeOptions(model.aqr_options)).router
    assert weights is not None
    lidar, camera = weights.modality.mean(1).unbind(-1)
    assert lidar[0] > camera[0] and camera[1] > lidar[1]
