# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Curves of trainings, read from their TensorBoard files and drawn as one picture."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from aqr_perception.training.plan.atomic_file import write_atomically


class Curve(NamedTuple):
    """Values at optimiser steps, in order."""

    steps: tuple[int, ...]
    values: tuple[float, ...]


class StageCurves(NamedTuple):
    """Curves of one stage: its name, its length in steps so far, and its curves by TensorBoard tag."""

    name: str
    steps: int
    curves: dict[str, Curve]


def read_curves(folder: Path, last_step: float = math.inf) -> dict[str, Curve]:
    """Return the curves of a training's folder by tag, up to a step; resumed parts are joined.

    A resumed training replaces the points of the steps that it repeats. What a killed one wrote beyond `last_step`, the
    end of the training, is left out.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    points: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("events.*"), key=lambda file: file.stat().st_mtime_ns):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            found = {point.step: point.value for point in events.Scalars(tag) if point.step <= last_step}
            points.setdefault(tag, {}).update(found)
    return {
        tag: Curve(tuple(sorted(by_step)), tuple(by_step[step] for step in sorted(by_step)))
        for tag, by_step in points.items()
    }


def write_picture(path: Path, stages: Sequence[StageCurves], title: str) -> None:
    """Write loss and validation score of all stages, one after another, as a PNG."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    loss_axes, score_axes = figure.subplots(2, 1, sharex=True)
    start = 0
    for number, stage in enumerate(stages):
        color = f"C{number % 10}"
        for axes, tag, style in ((loss_axes, "loss/total", "-"), (score_axes, "validation/score", ".-")):
            curve = stage.curves.get(tag, Curve((), ()))
            axes.plot([start + step for step in curve.steps], curve.values, style, color=color, linewidth=1)
            axes.axvline(start, color="0.8", linewidth=0.8)
        loss_axes.text(start, 1.02, f" {stage.name}", transform=loss_axes.get_xaxis_transform(), color=color)
        start += stage.steps
    losses = [value for stage in stages for value in stage.curves.get("loss/total", Curve((), ())).values]
    loss_axes.set(ylabel="loss", yscale="log" if any(value > 0 for value in losses) else "linear")
    score_axes.set(xlabel="optimiser step, over all stages", ylabel="validation score (mAP)")
    for axes in (loss_axes, score_axes):
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_atomically(path, picture.getvalue())
