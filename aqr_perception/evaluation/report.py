# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Robustness table as text, Markdown, JSON and a plot."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aqr_perception.evaluation.broken_weights import MOST_KEPT, WeightChange
from aqr_perception.evaluation.plain_table import PlainTable
from aqr_perception.evaluation.robustness import CLEAN, RobustnessRow, RobustnessTable
from aqr_perception.visualization.colours import CAMERA_COLOUR, LIDAR_COLOUR

MODE_COLOURS = ("#9a9a9a", "#1b7f5c", "#7b4fa3", "#c0504d", "#4a4a4a")
"""Colours by mode: grey for AQR off, green for on, then the others."""

_UNITS = {"ATE": " m", "ASE": "", "AOE": " rad", "AVE": " m/s", "AAE": ""}


def write(table: RobustnessTable, folder: Path) -> tuple[Path, ...]:
    """Write ``robustness.json``, ``.md`` and ``.png`` to a folder, which is created if missing; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    figures, page, picture = (folder / f"robustness.{suffix}" for suffix in ("json", "md", "png"))
    figures.write_text(json.dumps(table.as_dict(), indent=2) + "\n")
    page.write_text(markdown(table))
    plot(table, picture)
    return figures, page, picture


def text(table: RobustnessTable) -> str:
    """Return the table for a terminal, with further figures below it."""
    return _plain(table).text()


def markdown(table: RobustnessTable) -> str:
    """Return the table as Markdown, with further figures below it."""
    return _plain(table).markdown()


def _plain(table: RobustnessTable) -> PlainTable:
    return PlainTable(_title(table), *_cells(table), _notes(table))


def plot(table: RobustnessTable, path: Path) -> None:
    """Write a PNG of NDS and share of clean by scenario and mode, and of the sensor weights in the last mode."""
    figure = Figure(figsize=(11, 1.8 + 0.3 * len(table.rows)), layout="constrained")
    scores, weights = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    _plot_scores(scores, table)
    _plot_weights(weights, table)
    figure.suptitle(_title(table), fontsize=10)
    figure.savefig(path, dpi=120)


def _plot_scores(axes: Axes, table: RobustnessTable) -> None:
    for index, (offset, height) in enumerate(bar_places(len(table.modes))):
        mode, colour = table.modes[index], MODE_COLOURS[index % len(MODE_COLOURS)]
        rows = [table.row(name, mode) for name in table.scenarios]
        heights = [row.scores.nds for row in rows]
        bars = axes.barh(np.arange(len(rows)) + offset, heights, height, color=colour, label=mode_name(mode))
        axes.bar_label(
            bars, [f"{row.scores.nds:.3f} ({row.share_of_clean:.0%})" for row in rows], padding=3, fontsize=8
        )
    axes.set_yticks(range(len(table.scenarios)), list(table.scenarios))
    axes.invert_yaxis()
    # Leave room for the label of the longest bar.
    axes.set_xlim(0, 1.35 * max(max(row.scores.nds for row in table.rows), 0.05))
    axes.set_xlabel("NDS (share of clean)")
    tidy(axes)


def _plot_weights(axes: Axes, table: RobustnessTable) -> None:
    rows = [table.row(name, table.modes[-1]) for name in table.scenarios]
    places = np.arange(len(rows))
    sensors = (
        ("LiDAR", [row.lidar_weight for row in rows], LIDAR_COLOUR, -0.2),
        ("cameras", [row.camera_weight for row in rows], CAMERA_COLOUR, 0.2),
    )
    for label, values, colour, offset in sensors:
        bars = axes.barh(places + offset, values, 0.38, color=np.array(colour) / 255, label=label)
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    if min(*sensors[0][1], *sensors[1][1]) < 0:
        axes.set_xlim(-1.25, 1.25)
        axes.axvline(0, color="black", linewidth=0.8)
    else:
        axes.set_xlim(0, 1.15)
    axes.set_xlabel(f"mean weight of detections, {mode_name(table.modes[-1])}")
    tidy(axes)


def tidy(axes: Axes, columns: int = 5) -> None:
    """Remove the frame and put the legend, of so many columns, above the axes; there is none without labels."""
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, frameon=False, fontsize=9)


def bar_places(count: int) -> list[tuple[float, float]]:
    """Return the offset and the height of each of the bars that share a row."""
    height = 0.8 / count
    return [((index - (count - 1) / 2) * height, 0.95 * height) for index in range(count)]


def _cells(table: RobustnessTable) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table; modes have short names (``off``, ``on``) to save width."""
    header = ["scenario"]
    for mode in table.modes:
        short = mode_name(mode).removeprefix("AQR ")
        header += [f"mAP {short}", f"NDS {short}", f"share {short}"]
    header += ["LiDAR", "cameras"]
    return header, [_row(name, [table.row(name, mode) for mode in table.modes]) for name in table.scenarios]


def _row(name: str, by_mode: Sequence[RobustnessRow]) -> list[str]:
    cells = [name]
    for row in by_mode:
        cells += [f"{row.scores.mean_ap:.3f}", f"{row.scores.nds:.3f}", f"{row.share_of_clean:.1%}"]
    return [*cells, f"{by_mode[-1].lidar_weight:.2f}", f"{by_mode[-1].camera_weight:.2f}"]


def _title(table: RobustnessTable) -> str:
    scores = table.rows[0].scores
    classes = len(scores.classes) - len(scores.absent)
    return f"{table.model}: {table.frames} frames, {scores.objects} objects of {classes} classes"


def _notes(table: RobustnessTable) -> list[str]:
    """Return the figures without a column, one sentence each."""
    last = mode_name(table.modes[-1])
    notes = [
        "Share: NDS divided by the clean NDS of the same mode. "
        f"LiDAR, cameras: score-weighted mean weights of the detections, {last}"
    ]
    means = {mode: table.mean_failure_nds(mode) for mode in table.modes}
    known = {mode: mean for mode, mean in means.items() if mean is not None}
    if known:
        by_mode = ", ".join(f"{mean:.3f} with {mode_name(mode)}" for mode, mean in known.items())
        notes.append(f"Mean NDS over the failure scenarios: {by_mode}")
    clean = table.row(CLEAN, table.modes[-1]).scores
    if table.history is not None:
        notes.append(f"Earlier frames given to the model before each frame: {table.history}")
    errors = ", ".join(f"{name} {error:.3f}{_UNITS[name]}" for name, error in clean.errors.items())
    notes.append(f"True-positive errors, clean, {last}: {errors}")
    by_class = ", ".join(f"{name} {np.mean(list(ap.values())):.3f}" for name, ap in clean.ap.items())
    notes.append(f"AP by class, clean, {last}: {by_class}")
    absent = [name for name in table.classes if name not in clean.classes]
    if absent:
        notes.append(f"Classes absent from the truth, excluded from all means: {', '.join(absent)}")
    if clean.rules == "devkit":
        notes.append("Rules: nuScenes' own, as nuscenes-devkit's DetectionEval; its means are over all ten classes")
    if clean.absent:
        notes.append(f"Classes absent from the truth, with AP 0 and errors 1 in all means: {', '.join(clean.absent)}")
    notes += missing_notes(table)
    return [*notes, *(broken_note(kind, change) for kind, change in table.broken.items())]


class MissingData(Protocol):
    """What a table says about data that its scenarios lack; see `RobustnessTable`."""

    @property
    def frames(self) -> int: ...

    @property
    def left_out(self) -> Mapping[str, str]: ...

    @property
    def first_frames(self) -> int | None: ...


def missing_notes(table: MissingData) -> list[str]:
    """Return which scenarios the frames do not allow, and how many frames they leave intact."""
    notes = []
    for reason in dict.fromkeys(table.left_out.values()):
        names = ", ".join(name for name, own in table.left_out.items() if own == reason)
        notes.append(f"Left out: {names}: {reason}")
    if table.first_frames:
        notes.append(
            f"{table.first_frames} of {table.frames} frames are the first of their drive: data of before is not known "
            "there, and they stay intact in scenarios with late data"
        )
    return notes


def broken_note(kind: str, change: WeightChange) -> str:
    """Return a sentence about the weight of a kind of broken sensor."""
    number = "+.3f" if change.signed else ".3f"

    def compared(intact: float, broken: float, ratio: float | None) -> str:
        by = f"difference {broken - intact:+.3f}" if ratio is None else f"ratio {ratio:.2f}"
        return f"from {intact:{number}} to {broken:{number}} ({by})"

    own = compared(change.intact, change.broken, change.ratio)
    note = f"{kind[0].upper()}{kind[1:]}: its mean weight for the {change.queries} queries in its view changes {own}"
    if (change.modality_intact, change.modality_broken) != (change.intact, change.broken):
        modality = compared(change.modality_intact, change.modality_broken, change.modality_ratio)
        note += f"; the weight of the camera modality for the same queries, {modality}"
    if change.passed is not None:
        note += f". {'Passed' if change.passed else 'Missed'}: at most {MOST_KEPT:.0%} is wanted"
    return note


def mode_name(mode: str) -> str:
    """Return a mode's name in tables and plots."""
    return {"off": "AQR off", "auto": "AQR on"}.get(mode, f"AQR {mode}")
