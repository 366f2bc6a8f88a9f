# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Settings of one training, as flags of the command line or as a stage of a plan give them."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from aqr_perception.training.training_options import RouterGradient, Schedule, Trained, TrainOptions

AqrUse = Literal["preset", "off", "modulation", "bias", "both", "gate"]


@dataclass(frozen=True)
class TrainingSettings:
    """Model, start weights, data and options of a training; the defaults are those of the command's flags.

    Attributes:
        model: preset name or file.
        checkpoint, backbone, branches: files of the weights to start from; see `models.load_checkpoint`,
            `pretrained.load_backbone` and `weights.branches.load_branches`.
        aqr: how the model uses query weights; ``preset``: as in the preset, with ``train`` aqr in both ways if
            the preset has none.
        data, data_root, data_version, rig, skip_bad, world, frames: see `catalogue.open_data`.
        augmentation: random augmentation of frames.
        keep_pictures: augmentation that leaves pictures as they are; see `TrainingFrames`.
        vary_points: augmentation that imitates other LiDARs; see `TrainingFrames`.
        corruption: simulated sensor failures.
        remove_broken: share of the frames from which broken sensors are removed; see `TrainingFrames`.
        donors: frames whose objects are pasted into each frame; see `TrainingFrames`.
        feature_cache: folder for the maps of a frozen image backbone; None for no cache.
        history: earlier frames for models with memory.
        denoising_queries: largest number of denoising queries; None for the number of learned queries.
        router_weight: weight of the router loss; None for the model's own.
        router_gradient: what the router learns from; see `DetectionLoss`.
        validation_frames: frames of a validation.

    The other attributes are those of `TrainOptions`.
    """

    model: str = "aqr_tiny"
    checkpoint: Path | None = None
    backbone: Path | None = None
    branches: Path | None = None
    train: Trained = "all"
    aqr: AqrUse = "preset"
    data: str = "synthetic"
    data_root: Path | None = None
    data_version: str = "v1.0-trainval"
    rig: Path | None = None
    skip_bad: bool = False
    world: int | None = None
    frames: int | None = None
    augmentation: bool = True
    keep_pictures: bool = False
    vary_points: bool = False
    corruption: bool = True
    remove_broken: float = 0.0
    donors: int = 0
    feature_cache: Path | None = None
    history: int = 2
    workers: int = 2
    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch_size: int = 2
    accumulate: int = 1
    learning_rate: float = 4e-4
    backbone_factor: float = 1.0
    learning_rate_factors: Mapping[str, float] = field(default_factory=dict)
    schedule: Schedule = "one_cycle"
    device: str = "auto"
    precision: str = "auto"
    overfit: bool = False
    denoising_queries: int | None = None
    router_weight: float | None = None
    router_gradient: RouterGradient = "both"
    ema_decay: float = 0.999
    seed: int = 0
    checkpoint_every: int = 500
    validate_every: int = 0
    validation_frames: int = 50

    def options(self) -> TrainOptions:
        """Return the options of the training loop.

        Raises:
            OptionError: an option is out of range, or not exactly one of steps, epochs and minutes is given.
        """
        names = {entry.name for entry in fields(TrainOptions)} & {entry.name for entry in fields(self)}
        return TrainOptions(**{name: getattr(self, name) for name in names})

    def command(self, output: Path) -> str:
        """Return the call of ``aqr_perception train`` with these settings."""
        words = ["aqr_perception", "train"]
        defaults = TrainingSettings()
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value != getattr(defaults, entry.name):
                words += _flag(entry.name, value)
        return shlex.join([*words, "--output", str(output)])


def _flag(name: str, value: object) -> list[str]:
    """Return the words of a flag that gives a setting a value other than its default."""
    flag = f"--{name.replace('_', '-')}"
    if value is False:
        return [f"--no-{name}"]
    if value is True:
        return [flag]
    if isinstance(value, Mapping):
        return [word for part, factor in value.items() for word in ("--learning-rate-factor", f"{part}={factor!r}")]
    return [flag, str(value)]
