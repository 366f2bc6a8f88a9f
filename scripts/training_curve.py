#!/usr/bin/env python3
"""Plot the loss curves of runs of `aqr_perception train`, side by side in one PNG."""

import argparse
from pathlib import Path

from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def curves(run: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Return the steps and values of every loss in a run's folder; the parts of a resumed run are joined."""
    losses: dict[str, dict[int, float]] = {}
    for path in sorted(run.glob("events.*"), key=lambda file: file.stat().st_mtime):
        events = EventAccumulator(str(path))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            if tag.startswith("loss/"):
                points = losses.setdefault(tag.removeprefix("loss/"), {})
                points.update((point.step, point.value) for point in events.Scalars(tag))
    return {name: (sorted(points), [points[step] for step in sorted(points)]) for name, points in losses.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("png", type=Path, help="output file")
    parser.add_argument("runs", type=Path, nargs="+", help="output folders of `aqr_perception train`")
    options = parser.parse_args()
    figure = Figure(figsize=(4.5 * len(options.runs), 4), layout="constrained")
    for run, axes in zip(options.runs, figure.subplots(1, len(options.runs), squeeze=False)[0], strict=True):
        losses = curves(run)
        if not losses:
            parser.error(f"{run} contains no TensorBoard losses; pass an output folder of `aqr_perception train`")
        for name, (steps, values) in sorted(losses.items()):
            bold = name == "total"
            axes.plot(steps, values, label=name, linewidth=2 if bold else 1, color="black" if bold else None)
        axes.set(title=run.name, xlabel="step", ylabel="loss", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    figure.savefig(options.png, dpi=110)
    print(options.png)


if __name__ == "__main__":
    main()
