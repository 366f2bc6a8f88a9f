# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Run of a plan in its folder: one stage after another, continued after any interruption."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from aqr_perception.data.sample_order import SampleOrder
from aqr_perception.data.sources.simulated import TRAINING_WORLD, SimulatedDataset
from aqr_perception.training.distributed import Processes
from aqr_perception.training.loop import Outcome
from aqr_perception.training.plan import single_training
from aqr_perception.training.plan.atomic_file import write_atomically
from aqr_perception.training.plan.frame_drawing import draw_frames, undrawn_frames
from aqr_perception.training.plan.machine_description import describe_machine
from aqr_perception.training.plan.plan_card import RESULT, plan_command, write_card
from aqr_perception.training.plan.plan_checks import CheckedStage, check_plan
from aqr_perception.training.plan.plan_file import Plan, PlanError, Stage
from aqr_perception.training.plan.plan_overview import overview
from aqr_perception.training.plan.plan_state import (
    PlanState,
    StageState,
    locked,
    read_plan_state,
    set_aside,
)
from aqr_perception.training.plan.stage_settings import changed_settings, recorded_settings
from aqr_perception.training.training_state import state_files

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlanOutcome:
    """Result of a run: whether all stages have ended, and a message for the user."""

    finished: bool
    message: str


@dataclass(frozen=True)
class _Frames:
    """Simulated frames that a stage needs, and how to draw them."""

    what: str
    data: SimulatedDataset
    history: int
    workers: int


def show_plan(plan: Plan, folder: Path, restart: Collection[str] = ()) -> tuple[str, str | None]:
    """Check a plan; return its table, and why it cannot continue or None. Nothing is written.

    Raises:
        PlanError: the plan cannot be run; see `check_plan`.
    """
    state = read_plan_state(folder, plan.name)
    anew = _restarted(plan, state, restart)
    table = _overview(plan, state, check_plan(plan), anew)
    try:
        _require_unchanged(plan, state, anew)
    except PlanError as error:
        return table, str(error)
    return table, None


def run_plan(plan: Plan, folder: Path, restart: Collection[str] = ()) -> PlanOutcome:
    """Run the stages that are not finished, or continue where the run stopped.

    The folder gets a folder for each stage, ``plan_state.json``, ``card.json`` and ``curves.png`` after each stage,
    and at the end ``result.safetensors``. Ctrl-C stops the run, at the latest after the current step.

    Args:
        plan: see `read_plan`.
        folder: folder of the run.
        restart: stages to start anew, with all that build on them; their files move to ``earlier/``.

    Raises:
        PlanError: the plan cannot be run (see `check_plan`), another process runs it, a stage was started with other
            settings, or its training failed.
    """
    if Processes.from_environment().size > 1:
        raise PlanError(
            f"{plan.path}: found several processes (torchrun), needed one: a plan runs in one process; train single "
            "stages with torchrun, without --plan"
        )
    with locked(folder):
        try:
            return _prepared(plan, read_plan_state(folder, plan.name), restart).run()
        except KeyboardInterrupt:
            return _stopped(plan, folder, "Ctrl-C")


def _prepared(plan: Plan, state: PlanState, restart: Collection[str]) -> "_Run":
    """Return the run after all checks, and print its table; the models of the checks are no longer needed then."""
    anew = _restarted(plan, state, restart)
    checked = check_plan(plan)
    _require_unchanged(plan, state, anew)
    state.restart(anew)
    print(_overview(plan, state, checked, ()), flush=True)
    return _Run(plan, state, checked)


class _Run:
    """A run after all checks."""

    def __init__(self, plan: Plan, state: PlanState, checked: Mapping[str, CheckedStage]) -> None:
        self._plan, self._state, self._folder = plan, state, state.folder
        waiting = [stage for stage in plan.stages if not state.finished(stage.name)]
        self._frames = [frames for stage in waiting for frames in _frames_of(stage, checked[stage.name])]
        self._total_steps = {stage.name: _total_steps(stage, checked[stage.name]) for stage in waiting}

    def run(self) -> PlanOutcome:
        if self._frames or self._total_steps:
            set_aside(self._folder / RESULT)  # of an earlier run, before a stage was added or started anew
        for frames in self._frames:
            if undrawn_frames(frames.data, frames.history):
                _log.info("drawing frames: %s", frames.what)
                draw_frames(frames.data, frames.workers, frames.history)
        for stage in self._plan.stages:
            if self._state.finished(stage.name):
                continue
            outcome = self._run_stage(stage)
            write_card(self._plan, self._state, finished=False)
            if not outcome.finished or outcome.signal_name is not None:
                why = f"{outcome.signal_name or 'a signal'} after step {outcome.step} of stage {stage.name}"
                return _stopped(self._plan, self._folder, why)
        return self._finish()

    def _run_stage(self, stage: Stage) -> Outcome:
        """Start or continue a stage."""
        state, name = self._state, stage.name
        for weights in stage.starts.values():
            _require_weights(self._plan, weights.path(self._folder), weights.stage)
        if name not in state.stages:
            state.stages[name] = StageState(recorded_settings(stage), _now())
        record, machine = state.stages[name], describe_machine()
        record.sessions += 1
        record.total_steps = self._total_steps[name]
        if machine not in record.machines:
            record.machines.append(machine)
        state.save()  # before the first checkpoint, whose settings it tells
        _log.info("stage %s", name)
        try:
            outcome = single_training.run_training(stage.in_run(self._folder), self._folder / name, resume=True)
        except (ValueError, OSError) as error:
            raise PlanError(f"stage {name}: {error}") from error
        if outcome.finished:
            record.progress = state.progress_of(name)
            record.finished = _now()
            state.save()
        return outcome

    def _finish(self) -> PlanOutcome:
        result = self._plan.result
        source, target = result.path(self._folder), self._folder / RESULT
        _require_weights(self._plan, source, result.stage)
        content = source.read_bytes()
        if not (target.is_file() and target.read_bytes() == content):
            write_atomically(target, content)
        write_card(self._plan, self._state, finished=True)
        return PlanOutcome(True, f"{target}: {result}")


def _restarted(plan: Plan, state: PlanState, restart: Collection[str]) -> list[str]:
    """Return the stages to start anew: those asked for, what builds on them, and those of an interrupted restart."""
    names = [stage.name for stage in plan.stages]
    for name in restart:
        if name not in names:
            raise PlanError(f"--restart: found {name!r}, needed a stage of {plan.path}: {', '.join(names)}")
    interrupted = [name for name in state.restarting if name not in names]
    return [*plan.built_on({*restart, *state.restarting}), *interrupted]


def _require_unchanged(plan: Plan, state: PlanState, anew: Collection[str]) -> None:
    for stage in plan.stages:
        name = stage.name
        if name in anew:
            continue
        remedy = f"start it anew with --restart {name}"
        others = [other for other in plan.built_on([name]) if other != name and other in state.stages]
        if others:
            remedy += f", which also starts {', '.join(others)} anew"
        if name not in state.stages:
            files = state_files(state.folder / name / "checkpoints")
            if files:
                raise PlanError(
                    f"{files[-1]}: found a checkpoint of stage {name}, but the run does not know with which settings "
                    f"it was started: {remedy}"
                )
            continue
        changes = changed_settings(state.stages[name].settings, stage)
        if changes:
            raise PlanError(
                f"{plan.path}: stages: {name}: was started with other settings ({'; '.join(changes)}): put them back, "
                f"or {remedy}"
            )
    unknown = sorted(state.stages.keys() - {stage.name for stage in plan.stages} - set(anew))
    if unknown:
        _log.warning("%s also holds stages that the plan no longer has: %s", state.folder, ", ".join(unknown))


def _overview(plan: Plan, state: PlanState, checked: Mapping[str, CheckedStage], anew: Collection[str]) -> str:
    frames: dict[str, str] = {}
    for stage in plan.stages:
        for part in _frames_of(stage, checked[stage.name]):
            drawn = len(part.data) - len(undrawn_frames(part.data, part.history))
            frames[part.what] = f"{drawn} of {len(part.data)} drawn"
    total_steps = {stage.name: _total_steps(stage, checked[stage.name]) for stage in plan.stages}
    return overview(plan, state, list(frames.items()), total_steps, anew)


def _frames_of(stage: Stage, checked: CheckedStage) -> list[_Frames]:
    settings = stage.settings
    history = settings.history if checked.model.remembers else 0
    world = settings.world or TRAINING_WORLD
    parts = {"training": checked.training, "validation": checked.validation}
    return [
        _Frames(f"{split}, world {world}, {data.frames.folder}", data.frames, history, settings.workers)
        for split, data in parts.items()
        if data is not None and isinstance(data.frames, SimulatedDataset)
    ]


def _total_steps(stage: Stage, checked: CheckedStage) -> int | None:
    data = checked.training
    order = SampleOrder(len(data.frames), stage.settings.seed, data.label_sets)
    return stage.settings.options().step_count(order.pass_length, processes=1)


def _require_weights(plan: Plan, path: Path, stage: str) -> None:
    if not path.is_file():
        raise PlanError(
            f"{path}: found no file, although stage {stage} of {plan.path} has ended: put it back, or start the stage "
            f"anew with --restart {stage}"
        )


def _stopped(plan: Plan, folder: Path, why: str) -> PlanOutcome:
    return PlanOutcome(False, f"stopped by {why}; continue with: {plan_command(plan, folder)}")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
