# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Resistance table of MultiCorrupt as text, Markdown, JSON and a plot."""

import json
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aqr_perception.evaluation.benchmarks.multicorrupt import CORRUPTIONS, SEVERITIES
from aqr_perception.evaluation.benchmarks.resistance import BENCHMARK, Resistance, ResistanceTable
from aqr_perception.evaluation.plain_table import PlainTable
from aqr_perception.evaluation.report import MODE_COLOURS, bar_places, missing_notes, mode_name, tidy
from aqr_perception.options import AqrMode


def write(result: ResistanceTable, folder: Path) -> tuple[Path, ...]:
    """Write ``multicorrupt.json``, ``.md`` and ``.png`` to a folder, made if missing; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    figures, page, picture = (folder / f"{BENCHMARK}.{suffix}" for suffix in ("json", "md", "png"))
    figures.write_text(json.dumps(result.as_dict(), indent=2) + "\n")
    page.write_text(markdown(result))
    plot(result, picture)
    return figures, page, picture


def text(result: ResistanceTable) -> str:
    """Return the table for a terminal, with further figures below it."""
    return _plain(result).text()


def markdown(result: ResistanceTable) -> str:
    """Return the table as Markdown, with further figures below it."""
    return _plain(result).markdown()


def _plain(result: ResistanceTable) -> PlainTable:
    return PlainTable(_title(result), *_cells(result), _notes(result))


def plot(result: ResistanceTable, path: Path) -> None:
    """Write a PNG: for each corruption and mode, a bar of RA and dots at its severities; RRA beside it, if known."""
    compared = result.baseline is not None
    figure = Figure(figsize=(11, 1.8 + 0.45 * len(result.corruptions)), layout="constrained")
    axes = figure.subplots(1, 1 + compared, sharey=True, squeeze=False, width_ratios=(3, 2)[: 1 + compared])[0]
    places = np.arange(len(result.corruptions))
    bar_rows = zip(result.modes.items(), bar_places(len(result.modes)), strict=True)
    for index, ((mode, one), (offset, height)) in enumerate(bar_rows):
        colour = MODE_COLOURS[index % len(MODE_COLOURS)]
        _plot_ra(axes[0], result, one, places + offset, height, colour, mode_name(mode))
        if result.baseline is not None:
            other = result.baseline.modes[result.baseline.against(mode)]
            values = [100 * (one.rra(name, other) or 0.0) for name in result.corruptions]
            bars = axes[1].barh(places + offset, values, height, color=colour)
            axes[1].bar_label(bars, fmt="%+.1f", padding=3, fontsize=8)
    axes[0].set_yticks(places, [CORRUPTIONS[name].title for name in result.corruptions])
    axes[0].invert_yaxis()
    highest = max((max(one.ra(name) or (0.0,)) for one in result.modes.values() for name in one.nds), default=0.0)
    axes[0].set_xlim(0, 1.15 * max(highest, 1.0))
    axes[0].set_xlabel("resistance ability RA = NDS / clean NDS (bar: mean; dots: severities 1, 2, 3)")
    if result.baseline is not None:
        axes[1].set_xlabel(f"RRA in % against {result.baseline.model}")
        axes[1].axvline(0, color="black", linewidth=0.8)
        axes[1].margins(x=0.25)
    for one_axes in axes:
        tidy(one_axes)
    figure.suptitle(_title(result), fontsize=10)
    figure.savefig(path, dpi=120)


def _plot_ra(
    axes: Axes, result: ResistanceTable, one: Resistance, places: np.ndarray, height: float, colour: str, label: str
) -> None:
    means = [one.mean_ra(name) or 0.0 for name in result.corruptions]
    axes.barh(places, means, height, color=colour, alpha=0.75, label=label)
    for place, name, mean in zip(places, result.corruptions, means, strict=True):
        by_severity = one.ra(name) or ()
        axes.scatter(
            by_severity, [place] * len(by_severity), s=(10, 20, 32)[: len(by_severity)], color="#333333", zorder=3
        )
        axes.text(max(mean, *by_severity, 0.0) + 0.02, place, f"{mean:.3f}", va="center", fontsize=8)


def _cells(result: ResistanceTable) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table: a row a corruption, then the means."""
    header = ["corruption"]
    for mode in result.modes:
        short = mode_name(mode).removeprefix("AQR ")
        header += [*(f"{severity} {short}" for severity in SEVERITIES), f"RA {short}"]
        header += [f"RRA {short}"] if result.baseline is not None else []
    rows = []
    for name in result.corruptions:
        cells = [CORRUPTIONS[name].title]
        for mode, one in result.modes.items():
            cells += [_ratio(value) for value in one.ra(name) or (None,) * len(SEVERITIES)]
            cells.append(_ratio(one.mean_ra(name)))
            cells += _relative_cell(result, mode, one, name)
        rows.append(cells)
    means = ["mean"]
    for mode, one in result.modes.items():
        means += ["" for _ in SEVERITIES] + [_ratio(one.mra)]
        means += _relative_cell(result, mode, one, None)
    return header, [*rows, means]


def _relative_cell(result: ResistanceTable, mode: AqrMode, one: Resistance, name: str | None) -> list[str]:
    """Return the cell of RRA, or of mRRA without a name; none without a baseline."""
    if result.baseline is None:
        return []
    other = result.baseline.modes[result.baseline.against(mode)]
    value = one.mrra(other) if name is None else one.rra(name, other)
    return ["-" if value is None else f"{value:+.2%}"]


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _title(result: ResistanceTable) -> str:
    scores = result.table.rows[0].scores
    classes = len(scores.classes) - len(scores.absent)
    clean = ", ".join(f"{one.clean:.3f} with {mode_name(mode)}" for mode, one in result.modes.items())
    return (
        f"MultiCorrupt, {result.table.model}: {result.table.frames} frames, {scores.objects} objects of {classes} "
        f"classes; clean NDS {clean}"
    )


def _notes(result: ResistanceTable) -> list[str]:
    notes = [
        "1, 2, 3: resistance ability at each severity, NDS divided by the clean NDS of the same mode; RA: their mean; "
        "mean of RA: mRA"
    ]
    for mode, one in result.modes.items():
        notes.append(f"mRA {mode_name(mode)}: {_ratio(one.mra)} over {len(result.corruptions)} corruptions")
    if len(result.corruptions) < len(CORRUPTIONS):
        notes.append(f"Means over {len(result.corruptions)} of ten corruptions: not comparable with published ones")
    notes += [f"Left out: {CORRUPTIONS[name].title}: {reason}" for name, reason in result.left_out.items()]
    if result.baseline is not None:
        for mode, one in result.modes.items():
            against = result.baseline.against(mode)
            value = one.mrra(result.baseline.modes[against])
            shown = "-" if value is None else f"{value:+.2%}"
            source = f"{result.baseline.model} ({result.baseline.path}, {mode_name(against)})"
            notes.append(f"mRRA {mode_name(mode)}: {shown} against {source}")
    if result.table.history is not None:
        notes.append(f"Earlier frames given to the model before each frame: {result.table.history}")
    if result.table.auto_mode is not None:
        notes.append(f"AQR on: mode {result.table.auto_mode}, as in preset {result.table.model}")
    return [*notes, *missing_notes(result.table)]
