# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pictures of the headroom table and of the reliability of the weights."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aqr_perception.evaluation.headroom.headroom_table import HeadroomTable
from aqr_perception.evaluation.headroom.reliability import BINS, CONFIDENT, Reliability, WeightBins
from aqr_perception.evaluation.report import MODE_COLOURS, bar_places, mode_name, tidy
from aqr_perception.visualization.colours import CAMERA_COLOUR, LIDAR_COLOUR

_TAKEN_OUT_COLOUR = "#d9a441"


def plot_headroom(table: HeadroomTable, path: Path) -> None:
    """Write a PNG of every failure's NDS left in, taken out and with AQR, and of the broken sensors' weights."""
    figure = Figure(figsize=(12, 1.8 + 0.42 * len(table.rows)), layout="constrained")
    scores, weights = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    _plot_scores(scores, table)
    _plot_weights(weights, table)
    figure.suptitle(f"{table.model}: {table.frames} frames, {table.objects} objects", fontsize=10)
    figure.savefig(path, dpi=120)


def plot_reliability(reliability: Reliability, title: str, path: Path) -> None:
    """Write a PNG of mean health by weight, for the LiDAR and the cameras, with the number of pairs below."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, height_ratios=(3, 1))
    sensors = (
        ("LiDAR", reliability.lidar, reliability.confident_lidar, LIDAR_COLOUR),
        ("cameras", reliability.cameras, reliability.confident_cameras, CAMERA_COLOUR),
    )
    for column, (name, everything, confident, rgb) in enumerate(sensors):
        colour = np.array(rgb) / 255
        _plot_diagram(axes[0, column], name, everything, confident, colour)
        _plot_counts(axes[1, column], everything, colour)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)


def _plot_scores(axes: Axes, table: HeadroomTable) -> None:
    ways = [
        ("left in, AQR off", MODE_COLOURS[0], [row.left_in.nds for row in table.rows]),
        ("taken out", _TAKEN_OUT_COLOUR, [row.taken_out.nds for row in table.rows]),
    ]
    ways += [
        (
            mode_name(mode),
            MODE_COLOURS[1 + index % (len(MODE_COLOURS) - 1)],
            [row.by_mode[mode].nds for row in table.rows],
        )
        for index, mode in enumerate(table.modes)
    ]
    places = np.arange(len(table.rows))
    for (label, colour, values), (offset, height) in zip(ways, bar_places(len(ways)), strict=True):
        bars = axes.barh(places + offset, values, height, color=colour, label=label)
        axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=7)
    axes.set_yticks(places, [row.failure for row in table.rows])
    axes.invert_yaxis()
    # Leave room for the label of the longest bar.
    axes.set_xlim(0, 1.2 * max(*(value for _, _, values in ways for value in values), 0.05))
    axes.set_xlabel("NDS")
    tidy(axes)


def _plot_weights(axes: Axes, table: HeadroomTable) -> None:
    changes = [row.weights for row in table.rows]
    places = np.arange(len(changes))
    states = (
        ("sensor intact", [0.0 if change is None else change.intact for change in changes], MODE_COLOURS[0], -0.2),
        ("broken", [0.0 if change is None else change.broken for change in changes], MODE_COLOURS[3], 0.2),
    )
    for label, values, colour, offset in states:
        bars = axes.barh(places + offset, values, 0.38, color=colour, label=label)
        labels = ["" if change is None else f"{value:.2f}" for change, value in zip(changes, values, strict=True)]
        axes.bar_label(bars, labels, padding=3, fontsize=7)
    axes.set_xlim((-1.25, 1.25) if table.signed else (0, 1.15))
    axes.set_xlabel("mean weight of the broken sensor" if any(changes) else "no weights: no trained router")
    tidy(axes)


def _plot_diagram(axes: Axes, name: str, everything: WeightBins, confident: WeightBins, colour: object) -> None:
    axes.plot((0, 1), (0, 1), color="#9a9a9a", linewidth=1, linestyle="--")
    for bins, label, marker, style in (
        (everything, "all detections", "o", "-"),
        (confident, f"scores of {CONFIDENT:g} and more", "^", ":"),
    ):
        means = [mean for mean in bins.means() if mean is not None]
        if means:
            weights, health = zip(*means, strict=True)
            error = f"{label}: ECE {bins.calibration_error:.3f}, Brier {bins.brier:.3f}"
            axes.plot(weights, health, color=colour, marker=marker, linestyle=style, label=error)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel(f"mean health, {name}")
    tidy(axes, columns=1)


def _plot_counts(axes: Axes, bins: WeightBins, colour: object) -> None:
    centres = (np.arange(BINS) + 0.5) / BINS
    axes.bar(centres, bins.counts, 0.09, color=colour)
    if bins.total:
        axes.set_yscale("symlog", linthresh=1)
    axes.set_xlabel("weight")
    axes.set_ylabel("pairs")
    axes.spines[["top", "right"]].set_visible(False)
