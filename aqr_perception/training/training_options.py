"""How a training runs, validated as a whole."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal, get_args

from aqr_perception.options import OptionError

Schedule = Literal["one_cycle", "cosine", "constant"]
Trained = Literal["all", "aqr", "branches", "camera-branch", "lidar-branch", "head"]


@dataclass(frozen=True)
class TrainOptions:
    """How a training runs. Exactly one of `steps`, `epochs` and `minutes` says how long.

    Attributes:
        steps: optimiser steps.
        epochs: passes over the data; need not be whole.
        minutes: of wall clock, those before a resume included. Only in this mode does the machine's speed change what
            is computed.
        batch_size: samples of one forward pass of one process.
        accumulate: forward passes whose gradients make one step.
        learning_rate: the highest of the schedule.
        backbone_factor: learning rate of the image backbone relative to the rest: 0.1 suits a pretrained one.
        schedule: how the learning rate goes; see `schedule.learning_rate_factor`.
        warmup: share of the training in which it rises; None for the schedule's usual one.
        weight_decay: AdamW's.
        clip_norm: gradients longer than this are shortened to it.
        ema_decay: share of the averaged weights that one step keeps, once the average is under way.
        train: ``all``; ``aqr``: the router alone; ``branches``: image and point branch with their proposals, without
            the decoder; ``camera-branch``, ``lidar-branch``: one of them; ``head``: everything but these. What is not
            trained is frozen, batch norm statistics included.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; under torchrun each process takes its own.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16`` of the forward pass; weights stay in fp32.
        overfit: see one batch again and again, to show that the model can learn at all.
        workers: processes that prepare samples; 0 does it in the training process. The samples are the same.
        seed: of the data's order, its augmentation and everything random in a step.
        checkpoint_every: steps between two checkpoints.
        validate_every: steps between two validations; 0 for none.
        log_every: steps whose means make one point of a TensorBoard curve.
    """

    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch_size: int = 1
    accumulate: int = 1
    learning_rate: float = 4e-4
    backbone_factor: float = 1.0
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
        lengths = {name: getattr(self, name) for name in ("steps", "epochs", "minutes")}
        given = {name: length for name, length in lengths.items() if length is not None}
        if len(given) != 1:
            raise OptionError(f"the length of the training is given by {sorted(given)}: give one of {sorted(lengths)}")
        for name, length in given.items():
            self._require(name, 0 < length < math.inf, "positive")
        for name in ("batch_size", "accumulate", "checkpoint_every", "log_every"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("workers", "seed", "validate_every", "weight_decay", "backbone_factor"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "0 or more")
        for name in ("learning_rate", "clip_norm"):
            self._require(name, 0 < getattr(self, name) < math.inf, "positive")
        self._require("ema_decay", 0 <= self.ema_decay < 1, "in [0, 1)")
        self._require("warmup", self.warmup is None or 0 <= self.warmup <= 1, "in 0..1")
        self._require("schedule", self.schedule in get_args(Schedule), f"one of {', '.join(get_args(Schedule))}")
        self._require("train", self.train in get_args(Trained), f"one of {', '.join(get_args(Trained))}")

    def _require(self, name: str, holds: bool, needed: str) -> None:
        if not holds:
            raise OptionError(f"train {name} is {getattr(self, name)!r}, but must be {needed}")

    def as_dict(self) -> dict[str, object]:
        """Return the options as plain values, for checkpoints and logs."""
        return dataclasses.asdict(self)

    def step_count(self, samples: int, processes: int) -> int | None:
        """Return the optimiser steps of a training on so many samples and processes; None where a clock ends it."""
        if self.epochs is None:
            return self.steps
        return math.ceil(self.epochs * samples / (self.batch_size * self.accumulate * processes))
