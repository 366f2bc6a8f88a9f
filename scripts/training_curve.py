#!/usr/bin/env python3
"""Plot the loss curves of runs of `aqr_perception train` next to each other, as a PNG for a model card."""

import argparse
from pathlib import Path

from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def read_losses(run: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Return steps and values of each loss in a run's folder; resumed parts are joined."""
    values: dict[str, dict[int, float]] = {}
    for path in sorted(run.glob("events.*"), key=lambda file: file.stat().st_mtime):
        events = EventAccumulator(str(path))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            if tag.startswith("loss/"):
                by_step = values.setdefault(tag.removeprefix("loss/"), {})
                by_step.update((point.step, point.value) for point in events.Scalars(tag))
    return {name: (sorted(by_step), [by_step[step] for step in sorted(by_step)]) for name, by_step in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("png", type=Path, help="file to write")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of `aqr_perception train`")
    options = parser.parse_args()
    figure = Figure(figsize=(4.5 * len(options.runs), 4), layout="constrained")
    for run, axes in zip(options.runs, figure.subplots(1, len(options.runs), squeeze=False)[0], strict=True):
        losses = read_losses(run)
        if not losses:
            parser.error(f"{run} holds no TensorBoard loss curves: give the folder of a training run")
        for name, (steps, values) in sorted(losses.items()):
            color, width = ("black", 2) if name == "total" else (None, 1)
            axes.plot(steps, values, label=name, linewidth=width, color=color)
        axes.set(title=run.name, xlabel="step", ylabel="loss", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    figure.savefig(options.png, dpi=110)
    print(options.png)


if __name__ == "__main__":
    main()
