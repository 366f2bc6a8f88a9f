# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Plots of a drive over time: sensor weights, weight maps, recall and latency, with the failures shaded."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from aqr_perception.demo.drive_metrics import Timeline
from aqr_perception.demo.failures import Failure
from aqr_perception.demo.recording import BEV, CAMERA_GRID
from aqr_perception.visualization.colours import CAMERA_COLOUR, LIDAR_COLOUR, heat_colours

_LIDAR, _CAMERA = (np.array(colour) / 255 for colour in (LIDAR_COLOUR, CAMERA_COLOUR))
_FAILING_CAMERA, _RECALL, _LATENCY, _FAILURE = "#6a2c91", "#1b7f5c", "#4a5361", "#b3261e"
_NO_MAP = "#dfe3e8"

_LONGEST_STEP = 0.45
"""Largest time in seconds between two frames that a curve connects."""

_COLUMN_STEP, _COLUMN_REACH = 0.05, 0.15
"""Seconds between two columns of the map strip, and largest time difference between a column and its frame."""

Colour = NDArray[np.float64] | str


def timeline_figure(
    timeline: Timeline, failures: Sequence[Failure], seconds: float, size: tuple[float, float]
) -> Figure:
    """Return a figure of four plots, one below the other.

    Args:
        seconds: length of the drive.
        size: width and height in inches.
    """
    figure = Figure(figsize=size, layout="constrained")
    weights, maps, recall, latency = figure.subplots(4, 1, sharex=True, height_ratios=(3, 2.4, 2.4, 1.6))
    _plot_weights(weights, timeline)
    _plot_maps(maps, timeline, seconds)
    _plot_recall(recall, timeline)
    _plot_latency(latency, timeline)
    latency.set_xlabel("seconds")
    latency.set_xlim(0, seconds)
    visible = [failure for failure in failures if failure.begin < seconds]
    for axes in (weights, maps, recall, latency):
        axes.spines[["top", "right"]].set_visible(False)
        _mark_failures(axes, visible, shaded=axes is not maps)  # shading would hide the maps
    _label_failures(weights, visible, seconds)
    return figure


def pixels(figure: Figure, width: int, height: int) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Return a figure as a BGR picture, and the columns of the first and last second in it.

    Args:
        width, height: size of the picture; the figure is resized to it.
    """
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(100)
    figure.set_size_inches(width / 100, height / 100)
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib has no types for it
    picture = np.asarray(canvas.buffer_rgba())[..., 2::-1]  # type: ignore[no-untyped-call]
    axes = figure.axes[-1]
    first, last = (float(axes.transData.transform((edge, 0.0))[0]) for edge in axes.get_xlim())
    return np.ascontiguousarray(picture, np.uint8), (first, last)


def _plot_weights(axes: Axes, timeline: Timeline) -> None:
    curves: list[tuple[str, NDArray[np.float64], Colour, str]] = [
        ("LiDAR", timeline.lidar_weight, _LIDAR, "-"),
        ("cameras", timeline.camera_weight, _CAMERA, "-"),
    ]
    if timeline.failing_camera:
        name = f"camera {timeline.failing_camera}"
        curves.append((name, timeline.failing_camera_weight, _FAILING_CAMERA, "--"))
    for name, values, colour, style in curves:
        points = _with_gaps(timeline.seconds, values)
        axes.plot(*points, style, marker=".", markersize=4, linewidth=1.4, color=colour, label=name)
    if timeline.signed:
        axes.set_ylim(-1.05, 1.05)
        axes.axhline(0, color=_LATENCY, linewidth=0.8)
    else:
        axes.set_ylim(-0.03, 1.05)
    axes.set_ylabel("weight of\ndetections")
    axes.legend(loc="lower left", ncols=3, frameon=False, fontsize=8)


def _plot_maps(axes: Axes, timeline: Timeline, seconds: float) -> None:
    """Plot one row per sensor: the colour is the mean of its weight map; grey means no map."""
    order = (BEV, *CAMERA_GRID)
    names = sorted(timeline.map_means, key=lambda name: order.index(name) if name in order else len(order))
    axes.set_facecolor(_NO_MAP)
    axes.imshow(
        _map_strip(timeline, names, seconds),
        cmap=_map_colours(timeline.signed),
        vmin=-1.0 if timeline.signed else 0,
        vmax=1.0,
        aspect="auto",
        extent=(0, seconds, len(names), 0),
        interpolation="nearest",
    )
    axes.set_yticks(np.arange(len(names)) + 0.5, ["LiDAR" if name == BEV else name for name in names], fontsize=7)
    axes.set_ylabel("mean of\nthe maps")


def _map_colours(signed: bool) -> ListedColormap:
    """Return the colours of weight maps."""
    return ListedColormap(heat_colours(np.linspace(-1.0 if signed else 0.0, 1.0, 255), signed)[:, ::-1] / 255.0)


def _map_strip(timeline: Timeline, names: Sequence[str], seconds: float) -> NDArray[np.float64]:
    """Return the maps' means (sensors, columns) at regular times; NaN without a near frame."""
    columns = np.arange(0, seconds, _COLUMN_STEP)
    strip = np.full((len(names), len(columns)), np.nan)
    if len(timeline.seconds):
        distances = np.abs(columns[:, None] - timeline.seconds)
        nearest = distances.argmin(axis=1)
        covered = distances.min(axis=1) <= _COLUMN_REACH
        for row, name in enumerate(names):
            strip[row, covered] = timeline.map_means[name][nearest[covered]]
    return strip


def _plot_recall(axes: Axes, timeline: Timeline) -> None:
    points = _with_gaps(timeline.seconds, timeline.recall)
    axes.plot(*points, ".-", color=_RECALL, markersize=4, linewidth=1.2)
    axes.set_ylim(-0.03, 1.05)
    axes.set_ylabel("recall")


def _plot_latency(axes: Axes, timeline: Timeline) -> None:
    points = _with_gaps(timeline.seconds, timeline.milliseconds)
    axes.plot(*points, ".-", color=_LATENCY, markersize=4, linewidth=1)
    axes.set_ylim(0, None)
    axes.set_ylabel("latency\n(ms)")


def _mark_failures(axes: Axes, failures: Sequence[Failure], shaded: bool) -> None:
    for failure in failures:
        if shaded:
            axes.axvspan(failure.begin, failure.end, color=_FAILURE, alpha=0.10, linewidth=0)
        for edge in (failure.begin, failure.end):
            axes.axvline(edge, color=_FAILURE, linewidth=0.8, alpha=0.6)


def _label_failures(axes: Axes, failures: Sequence[Failure], seconds: float) -> None:
    for failure in failures:
        middle = (failure.begin + min(failure.end, seconds)) / 2
        axes.annotate(
            str(failure), (middle, 1.02), xycoords=("data", "axes fraction"), ha="center", color=_FAILURE, fontsize=9
        )


def _with_gaps(
    seconds: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a curve that is interrupted where frames are missing."""
    gaps = np.flatnonzero(np.diff(seconds) > _LONGEST_STEP) + 1
    return np.insert(seconds, gaps, np.nan), np.insert(values, gaps, np.nan)
