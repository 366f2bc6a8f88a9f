#!/usr/bin/env python3
# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Plot the loss curves of runs of `aqr_perception train` next to each other, as a PNG for a model card."""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from aqr_perception.training.plan.training_curves import read_curves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("png", type=Path, help="file to write")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of `aqr_perception train`")
    options = parser.parse_args()
    figure = Figure(figsize=(4.5 * len(options.runs), 4), layout="constrained")
    for run, axes in zip(options.runs, figure.subplots(1, len(options.runs), squeeze=False)[0], strict=True):
        losses = {
            tag.removeprefix("loss/"): curve for tag, curve in read_curves(run).items() if tag.startswith("loss/")
        }
        if not losses:
            parser.error(f"{run} holds no TensorBoard loss curves: give the folder of a training run")
        for name, curve in sorted(losses.items()):
            color, width = ("black", 2) if name == "total" else (None, 1)
            axes.plot(*curve, label=name, linewidth=width, color=color)
        axes.set(title=run.name, xlabel="step", ylabel="loss", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    figure.savefig(options.png, dpi=110)
    print(options.png)


if __name__ == "__main__":
    main()
