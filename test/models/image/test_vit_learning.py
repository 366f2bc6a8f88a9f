# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A detector with a Vision Transformer overfits a simulated frame."""

import numpy as np
import pytest
import torch

from aqr_perception.data.batch import collate
from aqr_perception.data.frames import TrainingFrames
from aqr_perception.data.sources.simulated import SimulatedDataset
from aqr_perception.models.cmt.model import CMT
from aqr_perception.models.config.presets import Decoder, ImageBranch, Preset, VitOptions
from aqr_perception.options import AqrOptions
from aqr_perception.training.losses.detection_loss import DetectionLoss


@pytest.mark.slow
def test_the_loss_of_one_simulated_frame_halves() -> None:
    torch.manual_seed(0)
    preset = Preset(
        "cameras",
        "for tests",
        (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0),
        image=ImageBranch((96, 32), "vit_tiny", vit=VitOptions(positions=8, window=3)),
        decoder=Decoder(channels=32, queries=40, layers=2, heads=2, feedforward=64, depths=8),
        aqr=AqrOptions(mode="off"),
    )
    model, loss = CMT(preset).train(), DetectionLoss()
    frames = TrainingFrames(
        SimulatedDataset([1], preset.image.size), preset, augment=False, corrupted=False, grid_mask=False
    )
    batch = collate([frames.sample(0, np.random.default_rng(0), 0.0)], preset)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1.5e-3, fused=True)  # with 3e-3, rounding decides
    history = []
    for _ in range(48):
        total = torch.stack(list(loss(model, batch, torch.Generator().manual_seed(0)).values())).sum()
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 35.0)
        optimiser.step()
        history.append(total.item())
    assert sum(history[-3:]) / 3 < history[0] / 2
