# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A plan of three stages with the smallest model, and a stand-in for its trainings."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from aqr_perception.data.sources.catalogue import Data
from aqr_perception.training.loop import Outcome
from aqr_perception.training.plan.plan_file import Plan, read_plan
from aqr_perception.training.plan.training_settings import TrainingSettings
from aqr_perception.training.training_state import state_files, write_state

CAMERAS: dict[str, object] = {
    "description": "the smallest model with cameras",
    "point_range": [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0],
    "image": {"size": [32, 32], "backbone": "resnet18", "width": 4},
    "sweeps": 1,
    "decoder": {
        "channels": 16,
        "queries": 8,
        "layers": 1,
        "heads": 2,
        "feedforward": 16,
        "depths": 4,
        "proposals": {"bev": 0, "image": 4},
    },
    "aqr": {"mode": "both", "bev_window": 3, "image_window": 3, "router_image_window": 3},
}
STAGES: list[dict[str, object]] = [
    {"name": "branches", "train": "branches", "steps": 2},
    {"name": "all", "checkpoint": {"stage": "branches"}, "steps": 3},
    {"name": "router", "train": "aqr", "aqr": "both", "checkpoint": {"stage": "all"}, "steps": 2},
]


def write_plan(folder: Path, **changed: Any) -> Path:
    """Write a plan and return its path; an entry of None is left out."""
    (folder / "cameras.yaml").write_text(yaml.safe_dump(CAMERAS))
    values = {"model": "cameras.yaml", "workers": 0, "device": "cpu", "stages": STAGES, **changed}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in values.items() if value is not None}))
    return path


def with_stage(of: str, **changed: object) -> list[dict[str, object]]:
    """Return the stages with other entries of one of them."""
    return [{**stage, **changed} if stage["name"] == of else stage for stage in STAGES]


class StopTraining(Exception):  # noqa: N818
    """A signal that stops a training."""


class StandInTrainings:
    """Trainings that count their steps, and whose weights are a text that tells how they came about.

    Attributes:
        trained: name and step of each step.
        before_step: called before each step with the name of the stage and the step; it may end the training with
            `StopTraining`.
    """

    def __init__(self) -> None:
        self.trained: list[tuple[str, int]] = []
        self.before_step: Callable[[str, int], None] = lambda name, step: None

    def run(self, settings: TrainingSettings, folder: Path, *, resume: bool) -> Outcome:
        assert resume
        files = state_files(folder / "checkpoints")
        step = int(files[-1].stem.removeprefix("step_")) if files else 0
        assert settings.steps is not None
        while step < settings.steps:
            try:
                self.before_step(folder.name, step + 1)
            except StopTraining:
                return Outcome(step, False, None, "stopped")
            step += 1
            self.trained.append((folder.name, step))
            state = {"step": step, "samples": 2 * step, "elapsed": 6.0 * step, "best": 0.1 * step}
            write_state(state, folder / "checkpoints", step)
        start = "" if settings.checkpoint is None else settings.checkpoint.read_text()
        own = json.dumps([folder.name, step, settings.learning_rate, settings.seed])
        weights = folder / "final.safetensors"
        weights.write_text(hashlib.sha256((start + own).encode()).hexdigest())
        return Outcome(step, True, weights, "trained")


def unchecked(plan: Plan) -> dict[str, SimpleNamespace]:
    """Return what `check_plan` returns of a plan, for stages with two frames that are not simulated."""
    data: Any = [0, 1]
    return {
        stage.name: SimpleNamespace(model=SimpleNamespace(remembers=False), training=Data(data), validation=None)
        for stage in plan.stages
    }


def small_plan(folder: Path, **changed: Any) -> Plan:
    return read_plan(write_plan(folder, **changed))
