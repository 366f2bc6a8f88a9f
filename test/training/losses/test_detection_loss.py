# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Loss of a detection model: a router that learns from the health of the sensors alone needs no decoder."""

from pathlib import Path

import pytest
import torch
import yaml
from helpers.sensed_batch import SENSORS, sensed_batch
from helpers.small_fusion import write_preset
from torch import Tensor

from aqr_perception.data.batch import Batch
from aqr_perception.data.health import HEALTH_GRID
from aqr_perception.models import build_model
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.training.losses.detection_loss import DetectionLoss
from aqr_perception.training.trainable import freeze
from aqr_perception.training.training_options import RouterGradient, Trained


@pytest.mark.parametrize("mode", ["gate", "bias", "both"])
def test_the_health_of_the_sensors_teaches_the_same_with_and_without_the_decoder(tmp_path: Path, mode: str) -> None:
    model, batch = _small(tmp_path, mode), _half_blind()
    gradients = []
    for train in ("aqr", "head"):  # the decoder runs if it is trained itself
        losses = _losses(model, batch, train, "health")
        assert ("class" in losses) is (train == "head")
        losses["router"].backward()
        gradients.append({name: part.grad for name, part in model.aqr.named_parameters() if part.grad is not None})
        model.zero_grad()
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])
    assert any(gradient.any() for gradient in gradients[0].values())


def test_the_decoder_runs_where_the_router_learns_from_the_detections(tmp_path: Path) -> None:
    model, batch = _small(tmp_path, "gate"), _half_blind()
    assert "class" in _losses(model, batch, "aqr", "both")
    assert "class" in _losses(model, batch, "aqr", "detection")


def _losses(model: DetectionModel, batch: Batch, train: Trained, gradient: RouterGradient) -> dict[str, Tensor]:
    freeze(model, train)
    loss = DetectionLoss(denoising=0, train=train, router_gradient=gradient)
    return loss(model, batch, torch.Generator().manual_seed(0))


def _small(folder: Path, mode: str) -> DetectionModel:
    entries = {"description": "small", **yaml.safe_load(SENSORS), "aqr": {"mode": mode}}
    entries["decoder"]["proposals"] = {"bev": 6, "image": 5}
    return build_model(write_preset(folder, entries)).eval()


def _half_blind() -> Batch:
    """Return two samples with an object each: cameras without health, then a LiDAR without points."""
    sensed = sensed_batch()
    box = torch.tensor([[5.0, 1.0, -1.0, 4.0, 2.0, 1.5, 0.3, 1.0, 0.0]])
    lidar = torch.stack((torch.ones(16, 16), torch.zeros(16, 16)))
    cameras = torch.stack((torch.zeros(3, *HEALTH_GRID), torch.ones(3, *HEALTH_GRID)))
    clouds = [sensed.points[0], sensed.points[1][:0]]
    labels, counts, shown = [torch.tensor([0]), torch.tensor([8])], [torch.tensor([9])] * 2, [torch.ones(1, 3)] * 2
    return Batch(
        sensed.images[:2], sensed.lidar_to_image[:2], clouds, [box, box], labels, counts, shown, lidar, cameras
    )
