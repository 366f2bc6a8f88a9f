# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A plan as a table: its stages, what they train, and how far each has come."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from aqr_perception.training.plan.plan_card import RESULT
from aqr_perception.training.plan.plan_file import Plan, Stage
from aqr_perception.training.plan.plan_state import PlanState, StageProgress
from aqr_perception.training.plan.training_settings import TrainingSettings


def overview(
    plan: Plan,
    state: PlanState,
    frames: Sequence[tuple[str, str]],
    total_steps: Mapping[str, int | None],
    anew: Collection[str] = (),
) -> str:
    """Return the table.

    Args:
        plan, state: the plan and the state of its run.
        frames: description of each set of simulated frames, and how many of them are drawn.
        total_steps: length of each stage in steps; None for a length in minutes.
        anew: stages that are to be started anew.
    """
    rows = [("frames", what, drawn) for what, drawn in frames]
    rows += [(stage.name, _task(stage), _state(stage, state, total_steps[stage.name], anew)) for stage in plan.stages]
    ready = (state.folder / RESULT).is_file() and not anew and all(state.finished(s.name) for s in plan.stages)
    rows.append(("result", f"{plan.result}", str(state.folder / RESULT) if ready else "waiting"))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    title = f"plan {plan.name} ({plan.path}) in {state.folder}"
    if plan.description:
        title += f": {plan.description}"
    return "\n".join([title, *(f"  {name:<{widths[0]}}  {what:<{widths[1]}}  {how}" for name, what, how in rows)])


def _task(stage: Stage) -> str:
    """Return what a stage trains, from which weights, and for how long."""
    settings = stage.settings
    given = {name: getattr(settings, name) for name in ("checkpoint", "backbone", "branches")}
    starts = [
        f"{name} from {stage.starts.get(name) or path.name}"
        for name, path in given.items()
        if name in stage.starts or path is not None
    ]
    return ", ".join(
        [f"{Path(settings.model).stem}: {settings.train}", *(starts or ["new weights"]), _length(settings)]
    )


def _length(settings: TrainingSettings) -> str:
    for name in ("steps", "epochs", "minutes"):
        length = getattr(settings, name)
        if length is not None:
            return f"{length:g} {name}"
    raise AssertionError  # a plan's stage has one of them


def _state(stage: Stage, state: PlanState, total_steps: int | None, anew: Collection[str]) -> str:
    if stage.name in anew:
        return "starts anew"
    if stage.name not in state.stages:
        return "waiting"
    progress = state.progress_of(stage.name)
    done = f"step {progress.step}" if total_steps is None else f"step {progress.step} of {total_steps}"
    minutes = f"minute {progress.minutes:.1f}"
    if stage.settings.minutes is not None:
        minutes += f" of {stage.settings.minutes:g}"
    word = "done" if state.finished(stage.name) else "started"
    return ", ".join([f"{word}: {done}", minutes, *_figures(progress)])


def _figures(progress: StageProgress) -> list[str]:
    figures = [f"{progress.samples_per_second:.2f} samples/s"] if progress.samples else []
    return figures if progress.best_score is None else [*figures, f"best score {progress.best_score:.4f}"]
