"""A drive's course over time: weights, weight maps, objects found and latency, with the failures shaded."""

import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from aqr_perception.demo.failures import Failure
from aqr_perception.demo.figures import Timeline
from aqr_perception.demo.recording import BEV, RING
from aqr_perception.visualization.colours import CAMERA_COLOUR, LIDAR_COLOUR

_LIDAR, _CAMERA = (np.array(colour) / 255 for colour in (LIDAR_COLOUR, CAMERA_COLOUR))
_WATCHED, _FOUND, _TIME = "#6a2c91", "#1b7f5c", "#4a5361"
_LONGEST_STEP = 0.45
"""Seconds between two answers that a curve still connects."""
_GRID_STEP, _HOLD = 0.05, 0.15
"""Seconds: between two columns of the maps' strip, and to either side of an answer that its column reaches."""


def timeline_figure(course: Timeline, failures: Sequence[Failure], seconds: float, size: tuple[float, float]) -> Figure:
    """Return the four plots below each other.

    Args:
        seconds: length of the drive.
        size: width and height in inches.
    """
    figure = Figure(figsize=size, layout="constrained")
    weights, maps, found, latency = figure.subplots(4, 1, sharex=True, height_ratios=(3, 2.4, 2.4, 1.6))
    _plot_weights(weights, course)
    _plot_maps(maps, course, seconds)
    found.plot(*_broken(course.seconds, course.recall), ".-", color=_FOUND, markersize=4, linewidth=1.2)
    found.set_ylim(-0.03, 1.05)
    found.set_ylabel("objects\nfound")
    latency.plot(*_broken(course.seconds, course.milliseconds), ".-", color=_TIME, markersize=4, linewidth=1)
    latency.set_ylim(0, None)
    latency.set_ylabel("ms a\nframe")
    latency.set_xlabel("seconds")
    latency.set_xlim(0, seconds)
    failures = [failure for failure in failures if failure.begin < seconds]
    for axes in (weights, maps, found, latency):
        axes.spines[["top", "right"]].set_visible(False)
        for failure in failures:
            if axes is not maps:  # there the failure is to be seen
                axes.axvspan(failure.begin, failure.end, color="#b3261e", alpha=0.10, linewidth=0)
            for edge in (failure.begin, failure.end):
                axes.axvline(edge, color="#b3261e", linewidth=0.8, alpha=0.6)
    for failure in failures:
        middle = (failure.begin + min(failure.end, seconds)) / 2
        weights.annotate(
            str(failure), (middle, 1.02), xycoords=("data", "axes fraction"), ha="center", color="#b3261e", fontsize=9
        )
    return figure


def svg(figure: Figure) -> str:
    """Return a figure as an SVG element for a page, its text as text."""
    written = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report", "font.family": "sans-serif"}):
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = written.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)


def pixels(figure: Figure, width: int, height: int) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Return a figure as a BGR picture, and the columns of its first and last second.

    Args:
        width, height: of the picture; the figure's size in inches is changed to have these proportions.
    """
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(100)
    figure.set_size_inches(width / 100, height / 100)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., 2::-1]
    axes = figure.axes[-1]
    first, last = (float(axes.transData.transform((edge, 0.0))[0]) for edge in axes.get_xlim())
    return np.ascontiguousarray(picture, np.uint8), (first, last)


def _broken(seconds: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """Return a curve with a hole wherever answers failed to come."""
    holes = np.flatnonzero(np.diff(seconds) > _LONGEST_STEP) + 1
    return np.insert(seconds, holes, np.nan), np.insert(values, holes, np.nan)


def _plot_weights(axes: Axes, course: Timeline) -> None:
    curves = [
        ("LiDAR", course.lidar_weight, _LIDAR, "-"),
        ("cameras", course.camera_weight, _CAMERA, "-"),
        (f"camera {course.watched}", course.watched_weight, _WATCHED, "--"),
    ]
    for name, values, colour, style in curves[: 3 if course.watched else 2]:
        points = _broken(course.seconds, values)
        axes.plot(*points, style, marker=".", markersize=4, linewidth=1.4, color=colour, label=name)
    axes.set_ylim(-0.03, 1.05)
    axes.set_ylabel("weight of\ndetections")
    axes.legend(loc="lower left", ncols=3, frameon=False, fontsize=8)


def _plot_maps(axes: Axes, course: Timeline, seconds: float) -> None:
    """Each sensor's row is as bright as its weight map is in the mean; grey where there was no map."""
    names = sorted(course.maps, key=lambda name: (BEV, *RING).index(name) if name in (BEV, *RING) else len(RING) + 1)
    columns = np.arange(0, seconds, _GRID_STEP)
    strip = np.full((len(names), len(columns)), np.nan)
    if len(course.seconds):
        away = np.abs(columns[:, None] - course.seconds)
        nearest = away.argmin(axis=1)
        near = away.min(axis=1) <= _HOLD
        for row, name in enumerate(names):
            strip[row, near] = course.maps[name][nearest[near]]
    axes.set_facecolor("#dfe3e8")
    axes.imshow(
        strip,
        cmap="inferno",
        vmin=0,
        vmax=1.0,
        aspect="auto",
        extent=(0, seconds, len(names), 0),
        interpolation="nearest",
    )
    axes.set_yticks(np.arange(len(names)) + 0.5, ["LiDAR" if name == BEV else name for name in names], fontsize=7)
    axes.set_ylabel("mean of\nthe maps")
