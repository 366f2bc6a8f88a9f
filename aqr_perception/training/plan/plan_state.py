# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""State of a plan's run in its folder: what each stage was started with, and what it ended with."""

import dataclasses
import fcntl
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aqr_perception.models.config.typed_values import WrongValueError, read
from aqr_perception.training.plan.atomic_file import write_atomically
from aqr_perception.training.plan.plan_file import EARLIER, PlanError
from aqr_perception.training.training_state import read_state, state_files

STATE = "plan_state.json"
_LOCK = ".plan.lock"
_FORMAT = 1


@dataclass(frozen=True)
class StageProgress:
    """How far a stage's training has come.

    Attributes:
        step: optimiser steps done.
        samples: samples seen.
        minutes: training time with its validations, without time lost by kills.
        best_score: best score of a validation; None without one.
    """

    step: int = 0
    samples: int = 0
    minutes: float = 0.0
    best_score: float | None = None

    @property
    def samples_per_second(self) -> float:
        return self.samples / (60 * self.minutes) if self.minutes else 0.0


@dataclass
class StageState:
    """State of a stage that was started.

    Attributes:
        settings: see `stage_settings.recorded_settings`.
        started, finished: local times in ISO 8601; `finished` is None before the end.
        sessions: number of times that the stage was started or resumed.
        machines: descriptions of the machines that trained it, without duplicates.
        total_steps: its length in steps; None if it has a length in minutes.
        progress: how far it came; only for a finished stage.
    """

    settings: dict[str, Any]
    started: str
    finished: str | None = None
    sessions: int = 0
    machines: list[dict[str, Any]] = field(default_factory=list)
    total_steps: int | None = None
    progress: StageProgress | None = None


@dataclass
class PlanState:
    """State of a run, in memory and in its file.

    Attributes:
        folder: folder of the run.
        plan: name of the plan.
        stages: the stages that were started, by name.
        restarting: stages that are being started anew: their folders are not moved away yet.
    """

    folder: Path
    plan: str
    stages: dict[str, StageState] = field(default_factory=dict)
    restarting: list[str] = field(default_factory=list)

    def finished(self, stage: str) -> bool:
        return stage in self.stages and self.stages[stage].finished is not None

    def save(self) -> None:
        """Write the state atomically."""
        content = {
            "format": _FORMAT,
            "plan": self.plan,
            "stages": {name: dataclasses.asdict(stage) for name, stage in self.stages.items()},
            "restarting": self.restarting,
        }
        write_atomically(self.folder / STATE, json.dumps(content, indent=1).encode())

    def progress_of(self, stage: str) -> StageProgress:
        """Return a stage's progress: at its end, or in its newest checkpoint.

        Raises:
            StateError: the newest checkpoint is damaged.
        """
        state = self.stages.get(stage)
        if state is not None and state.progress is not None:
            return state.progress
        files = state_files(self.folder / stage / "checkpoints")
        if not files:
            return StageProgress()
        stored = read_state(files[-1])
        return StageProgress(stored["step"], stored["samples"], stored["elapsed"] / 60, stored["best"])

    def restart(self, stages: Collection[str]) -> None:
        """Forget stages and move their folders away, also after a kill in between."""
        self.restarting = [*self.restarting, *(name for name in stages if name not in self.restarting)]
        if not self.restarting:
            return
        for name in self.restarting:
            self.stages.pop(name, None)
        self.save()
        for name in self.restarting:
            set_aside(self.folder / name)
        self.restarting = []
        self.save()


def set_aside(path: Path) -> None:
    """Move a file or folder of a run into its folder for earlier ones; do nothing if it does not exist."""
    if not path.exists():
        return
    folder = path.parent / EARLIER
    folder.mkdir(exist_ok=True)
    number = 1
    while (target := folder / f"{path.stem}_{number}{path.suffix}").exists():
        number += 1
    path.replace(target)


def read_plan_state(folder: Path, plan: str) -> PlanState:
    """Return the state in a run's folder; without one, that of a run with nothing started.

    Raises:
        PlanError: the file is damaged, of another version, or of another plan.
    """
    path = folder / STATE
    try:
        text = path.read_text()
    except FileNotFoundError:
        return PlanState(folder, plan)
    try:
        content = json.loads(text)
        version = content.pop("format") if isinstance(content, dict) else None
        if version != _FORMAT:
            raise PlanError(
                f"{path}: has format {version!r}, needed {_FORMAT}: go on with the version that wrote it, or choose "
                "another --output"
            )
        stages = {name: _stage_state(stage, f"{path}: {name}") for name, stage in content["stages"].items()}
        state = PlanState(folder, str(content["plan"]), stages, [str(name) for name in content["restarting"]])
    except (json.JSONDecodeError, KeyError, AttributeError, TypeError, WrongValueError) as error:
        raise PlanError(
            f"{path}: is damaged ({type(error).__name__}: {error}): restore it, or choose another --output"
        ) from error
    if state.plan != plan:
        raise PlanError(
            f"{path}: belongs to the plan {state.plan!r}, but this plan is {plan!r}: choose another --output"
        )
    return state


def _stage_state(values: dict[str, Any], where: str) -> StageState:
    settings, machines = values.pop("settings"), values.pop("machines")
    progress = values.pop("progress")
    return StageState(
        settings=settings,
        machines=machines,
        started=read(str, values["started"], f"{where}: started"),
        finished=read(str | None, values["finished"], f"{where}: finished"),
        sessions=read(int, values["sessions"], f"{where}: sessions"),
        total_steps=read(int | None, values["total_steps"], f"{where}: total_steps"),
        progress=None if progress is None else read(StageProgress, progress, f"{where}: progress"),
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from running a plan in a folder, which is made if it does not exist.

    Raises:
        PlanError: another process runs a plan there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PlanError(
                f"{folder}: found another process that runs a plan there ({error}), needed one: wait for it, look at "
                "it with --status, or choose another --output"
            ) from error
        yield
    finally:
        os.close(descriptor)
