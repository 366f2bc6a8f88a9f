# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Settings of a training: the same from flags, and as the command that a card shows."""

import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from aqr_perception.cli import _parser
from aqr_perception.commands.train import _settings
from aqr_perception.training.plan.training_settings import TrainingSettings

OTHER: dict[str, Any] = {
    "model": "petr_tiny",
    "checkpoint": Path("a b.pth"),
    "backbone": Path("backbone.pth"),
    "branches": Path("branches.pth"),
    "train": "camera-branch",
    "aqr": "off",
    "data": "nuscenes",
    "data_root": Path("/data"),
    "data_version": "v1.0-mini",
    "rig": Path("rig.yaml"),
    "skip_bad": True,
    "world": 2,
    "frames": 7,
    "augmentation": False,
    "keep_pictures": True,
    "vary_points": True,
    "corruption": False,
    "remove_broken": 0.5,
    "donors": 3,
    "feature_cache": Path("cache"),
    "history": 1,
    "workers": 0,
    "steps": 3,
    "epochs": 0.5,
    "minutes": 1.5,
    "batch_size": 4,
    "accumulate": 2,
    "learning_rate": 1.4e-05,
    "backbone_factor": 0.1,
    "learning_rate_factors": {"img_backbone": 0.0, "img_neck": 0.5},
    "schedule": "cosine",
    "device": "cpu",
    "precision": "bf16",
    "overfit": True,
    "denoising_queries": 0,
    "router_weight": 0.0,
    "router_gradient": "health",
    "ema_decay": 0.9,
    "seed": 3,
    "checkpoint_every": 100,
    "validate_every": 10,
    "validation_frames": 5,
}


def parsed(command: str) -> TrainingSettings:
    return _settings(_parser().parse_args(shlex.split(command)[1:]))


@pytest.mark.parametrize("name", [field.name for field in fields(TrainingSettings)])
def test_the_command_of_settings_gives_the_same_settings(name: str) -> None:
    settings = replace(TrainingSettings(epochs=20.0), **{name: OTHER[name]})
    if name in ("steps", "minutes"):
        settings = replace(settings, epochs=None)
    assert settings != TrainingSettings(epochs=20.0)
    command = settings.command(Path("my run"))
    assert parsed(command) == settings
    assert command.endswith("--output 'my run'")


def test_without_flags_a_training_has_the_default_settings_and_20_epochs() -> None:
    assert parsed("aqr_perception train") == TrainingSettings(epochs=20.0)
