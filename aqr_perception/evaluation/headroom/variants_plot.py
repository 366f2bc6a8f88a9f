# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Picture of the ablation table."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from aqr_perception.evaluation.headroom.variants import Figures, Variant
from aqr_perception.evaluation.report import MODE_COLOURS, bar_places, tidy


def plot_variants(found: Mapping[Variant, Figures], path: Path) -> None:
    """Write a PNG of each variant's clean NDS and mean NDS over the failures, and of the headroom that it wins."""
    figure = Figure(figsize=(11, 1.8 + 0.5 * len(found)), layout="constrained")
    scores, shares = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    summaries = [figures["summary"][variant.mode] for variant, figures in found.items()]
    places = np.arange(len(found))
    parts = (("clean", "clean", MODE_COLOURS[0]), ("failures", "mean over the failures", MODE_COLOURS[1]))
    for (entry, label, colour), (offset, height) in zip(parts, bar_places(len(parts)), strict=True):
        values = [summary[entry] or 0.0 for summary in summaries]
        bars = scores.barh(places + offset, values, height, color=colour, label=label)
        scores.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
    scores.set_yticks(places, [variant.name for variant in found])
    scores.invert_yaxis()
    # Leave room for the label of the longest bar.
    scores.set_xlim(0, 1.2 * max(0.05, *(summary[entry] or 0.0 for summary in summaries for entry, _, _ in parts)))
    scores.set_xlabel("NDS")
    tidy(scores)
    won = [100 * (summary["share_won"] or 0.0) for summary in summaries]
    bars = shares.barh(places, won, 0.6, color=MODE_COLOURS[2])
    labels = ["" if summary["share_won"] is None else f"{summary['share_won']:.0%}" for summary in summaries]
    shares.bar_label(bars, labels, padding=3, fontsize=8)
    shares.axvline(0, color="black", linewidth=0.8)
    shares.set_xlabel("headroom won in %")
    shares.margins(x=0.2)
    tidy(shares)
    figure.savefig(path, dpi=120)
