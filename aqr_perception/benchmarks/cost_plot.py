# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Plot of a frame's cost against the number of cameras, points or queries."""

from collections.abc import Sequence
from pathlib import Path

from aqr_perception.benchmarks.frame_comparison import Comparison

_STAGES = ("preprocess", "image", "points", "decoder", "postprocess")
_COLOURS = ("#9aa5b1", "#2a78b8", "#2f9e63", "#c2652a", "#d9b44a")


def draw_costs(sweeps: Sequence[tuple[str, Comparison]], title: str, path: Path) -> None:
    """Write a picture with one panel a sweep: the stages' median times, stacked, over the swept number.

    Args:
        sweeps: name of the number, and its measurements, whose variants are named after its values.
        title: title of the picture.
        path: PNG or SVG.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.2 + 4.2 * len(sweeps), 4.2), layout="constrained")
    panels = figure.subplots(1, len(sweeps), squeeze=False, sharey=True)[0]
    for panel, (name, comparison) in zip(panels, sweeps, strict=True):
        variants = sorted(comparison.variants, key=lambda variant: int(variant.name))
        numbers = [int(variant.name) for variant in variants]
        heights = [
            [variant.median_ms(stage) if stage in variant.seconds else 0.0 for variant in variants] for stage in _STAGES
        ]
        panel.stackplot(numbers, heights, labels=_STAGES, colors=_COLOURS, alpha=0.85)
        totals = [variant.median_ms("total") for variant in variants]
        panel.plot(numbers, totals, "o-", color="black", linewidth=1, markersize=4, label="total")
        panel.set_xlabel(f"number of {name}")
        panel.set_xticks(numbers)
        panel.tick_params(axis="x", labelrotation=0 if max(numbers) < 1000 else 30)
        panel.grid(axis="y", alpha=0.3)
        panel.set_xlim(min(numbers), max(numbers))
    panels[0].set_ylabel("median time of a frame (ms)")
    panels[0].set_ylim(bottom=0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center", frameon=False)
    noisy = "" if all(comparison.stable for _, comparison in sweeps) else " (noisy machine)"
    figure.suptitle(f"{title}{noisy}", fontsize=11)
    figure.savefig(path, dpi=130)
