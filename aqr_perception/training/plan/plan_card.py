# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Card of a run: what a model card needs to know of a training in stages, as JSON."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aqr_perception
from aqr_perception.training.plan.atomic_file import write_atomically
from aqr_perception.training.plan.plan_file import Plan, Stage
from aqr_perception.training.plan.plan_state import PlanState
from aqr_perception.training.plan.training_curves import Curve, StageCurves, read_curves, write_picture

CARD, CURVES, RESULT = "card.json", "curves.png", "result.safetensors"


def plan_command(plan: Plan, run: Path) -> str:
    """Return the call that runs a plan, and continues it."""
    return shlex.join(["aqr_perception", "train", "--plan", str(plan.path), "--output", str(run)])


def write_card(plan: Plan, state: PlanState, *, finished: bool) -> None:
    """Write the card and the picture of the curves of all stages that were started.

    Args:
        finished: whether all stages have ended and the result is written.
    """
    run = state.folder
    started = [stage for stage in plan.stages if stage.name in state.stages]
    progress = {stage.name: state.progress_of(stage.name) for stage in started}
    curves = {stage.name: read_curves(run / stage.name, progress[stage.name].step) for stage in started}
    result = {"stage": plan.result.stage, "weights": plan.result.weights}
    if finished:
        result |= {"file": RESULT, "sha256": hashlib.sha256((run / RESULT).read_bytes()).hexdigest()}
    card = {
        "plan": plan.name,
        "description": plan.description,
        "command": plan_command(plan, run),
        "version": aqr_perception.__version__,
        "finished": finished,
        "result": result,
        "minutes": round(sum(stage.minutes for stage in progress.values()), 2),
        "samples": sum(stage.samples for stage in progress.values()),
        "stages": [_stage_card(stage, state, curves[stage.name]) for stage in started],
    }
    write_atomically(run / CARD, json.dumps(card, indent=1).encode())
    if started:
        drawn = [StageCurves(name, progress[name].step, curves[name]) for name in curves]
        write_picture(run / CURVES, drawn, f"{plan.name}: loss and validation score")


def _stage_card(stage: Stage, state: PlanState, curves: Mapping[str, Curve]) -> dict[str, Any]:
    record, progress = state.stages[stage.name], state.progress_of(stage.name)
    scores = curves.get("validation/score", Curve((), ()))
    return {
        "name": stage.name,
        "command": stage.in_run(state.folder).command(state.folder / stage.name),
        "model": stage.settings.model,
        "train": stage.settings.train,
        "starts_from": {setting: str(weights) for setting, weights in stage.starts.items()},
        "seed": stage.settings.seed,
        "steps": progress.step,
        "samples": progress.samples,
        "minutes": round(progress.minutes, 2),
        "samples_per_second": round(progress.samples_per_second, 3),
        "best_score": progress.best_score,
        "validation": [{"step": step, "score": score} for step, score in zip(scores.steps, scores.values, strict=True)],
        "started": record.started,
        "finished": record.finished,
        "sessions": record.sessions,
        "machines": record.machines,
        "settings": record.settings,
    }
