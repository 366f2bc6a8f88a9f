# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Losses of models with their own class list."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.own_classes import OWN, write_preset
from helpers.quick_first import quick_first

from aqr_perception.data.batch import collate
from aqr_perception.data.frames import TrainingFrames
from aqr_perception.frame import LabelledFrame
from aqr_perception.models import build_model
from aqr_perception.simulator.drive import draw_drive
from aqr_perception.training.losses.detection_loss import DetectionLoss


@pytest.fixture(scope="module")
def labelled() -> LabelledFrame:
    drawn = draw_drive(1, 1.0).frame(0.5)
    truth = drawn.truth.relabelled(OWN)
    # The last class occurs, so that a class output that is missing would be noticed.
    return dataclasses.replace(drawn, truth=dataclasses.replace(truth, labels=np.arange(len(truth)) % len(OWN)))


@pytest.mark.slow
@pytest.mark.parametrize("base", quick_first(["aqr_tiny_sparse", "petr_tiny", "petrv2_tiny", "bevformer_mini"]))
def test_every_class_output_learns(tmp_path: Path, labelled: LabelledFrame, base: str) -> None:
    model = build_model(write_preset(tmp_path, base)).train()
    data = TrainingFrames([labelled], model.preset, augment=False, corrupted=False, grid_mask=False)
    batch = collate([data.sample(0, np.random.default_rng(0), 0.0)], model.preset)
    assert len(labelled.truth) > len(OWN) and {int(label) for label in batch.labels[0]} == set(range(len(OWN)))
    parts = DetectionLoss()(model, batch, torch.Generator().manual_seed(0))
    assert all(torch.isfinite(part) for part in parts.values()) and "proposal_class" in parts
    sum(parts.values()).backward()
    outputs = [
        parameter
        for name, parameter in model.named_parameters()
        if name.endswith(("cls_logits.3.bias", "cls_branches.0.6.bias"))
    ]
    assert outputs
    for output in outputs:
        assert output.grad is not None and len(output) % len(OWN) == 0 and (output.grad != 0).all()
