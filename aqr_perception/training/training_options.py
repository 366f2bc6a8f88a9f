# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Options of a training, validated as a whole."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from aqr_perception.options import OptionError

Schedule = Literal["one_cycle", "cosine", "constant"]
Trained = Literal["all", "aqr", "branches", "camera-branch", "lidar-branch", "head"]
RouterGradient = Literal["both", "health", "detection"]


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training. Exactly one of `steps`, `epochs` and `minutes` gives its length.

    Attributes:
        steps: optimiser steps.
        epochs: passes over the data, not necessarily a whole number.
        minutes: wall-clock time, including the time before a resume. With this option, the results depend on the
            machine's speed.
        batch_size: samples per forward pass and process.
        accumulate: forward passes per optimiser step.
        learning_rate: highest learning rate of the schedule.
        backbone_factor: learning rate of the image backbone relative to the rest: 0.1 suits a pretrained backbone. It
            multiplies the learning-rate factors of the backbone.
        learning_rate_factors: learning rates relative to the schedule, by part of the model, in place of those of the
            preset; 0 freezes a part; see `part_factors`.
        schedule: schedule of the learning rate; see `schedule.learning_rate_factor`.
        warmup: share of the training in which the rate rises; None for the schedule's default.
        weight_decay: weight decay of AdamW.
        clip_norm: largest norm of the gradient; larger gradients are scaled down.
        ema_decay: decay of the averaged weights per step, after the first steps.
        train: trained parameters: ``all``; ``aqr``: the router; ``branches``: image and point branch with their
            proposals, without the decoder; ``camera-branch``, ``lidar-branch``: one of the branches; ``head``: all but
            the branches. The rest is frozen, including batch norm statistics.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; under torchrun each process uses its own GPU.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16`` of the forward pass; weights stay in fp32.
        overfit: repeat a single batch, to check that the model can learn.
        workers: processes that prepare samples; with 0, the training process does. The samples are the same.
        seed: seed of the order of the data, of its augmentation and of all random numbers in a step.
        checkpoint_every: steps between two checkpoints.
        validate_every: steps between two validations; 0 for none.
        log_every: steps per point of a TensorBoard curve.
    """

    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch_size: int = 1
    accumulate: int = 1
    learning_rate: float = 4e-4
    backbone_factor: float = 1.0
    learning_rate_factors: Mapping[str, float] = field(default_factory=dict)
    schedule: Schedule = "one_cycle"
    warmup: float | None = None
    weight_decay: float = 0.01
    clip_norm: float = 35.0
    ema_decay: float = 0.999
    train: Trained = "all"
    device: str = "auto"
    precision: str = "auto"
    overfit: bool = False
    workers: int = 2
    seed: int = 0
    checkpoint_every: int = 500
    validate_every: int = 0
    log_every: int = 10

    def __post_init__(self) -> None:
        self._require_one_length()
        for name in ("batch_size", "accumulate", "checkpoint_every", "log_every"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("workers", "seed", "validate_every", "weight_decay", "backbone_factor"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "0 or more")
        for part, factor in self.learning_rate_factors.items():
            if not 0 <= factor < math.inf:
                raise OptionError(f"train learning_rate_factors: {part!r} is {factor!r}, but must be 0 or more")
        for name in ("learning_rate", "clip_norm"):
            self._require(name, 0 < getattr(self, name) < math.inf, "positive")
        self._require("ema_decay", 0 <= self.ema_decay < 1, "in [0, 1)")
        self._require("warmup", self.warmup is None or 0 <= self.warmup <= 1, "in 0..1")
        self._require("schedule", self.schedule in get_args(Schedule), f"one of {', '.join(get_args(Schedule))}")
        self._require("train", self.train in get_args(Trained), f"one of {', '.join(get_args(Trained))}")

    def _require_one_length(self) -> None:
        names = ("steps", "epochs", "minutes")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if len(given) != 1:
            raise OptionError(
                f"found the length of the training in {', '.join(given) or 'no option'}; give exactly one of "
                f"{', '.join(names)}"
            )
        for name, length in given.items():
            self._require(name, 0 < length < math.inf, "positive")

    def _require(self, name: str, holds: bool, needed: str) -> None:
        if not holds:
            raise OptionError(f"train {name} is {getattr(self, name)!r}, but must be {needed}")

    def as_dict(self) -> dict[str, object]:
        """Return the options as plain values, for training states."""
        return dataclasses.asdict(self)

    def step_count(self, samples: int, processes: int) -> int | None:
        """Return the optimiser steps of a training with this many samples and processes; None for `minutes`."""
        if self.epochs is None:
            return self.steps
        return math.ceil(self.epochs * samples / (self.batch_size * self.accumulate * processes))
