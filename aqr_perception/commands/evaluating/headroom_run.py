# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""``aqr_perception evaluate --benchmark headroom``: what gating can win, for one model or for variants of AQR."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from aqr_perception.commands.output import write_json

if TYPE_CHECKING:
    from aqr_perception.data.sources.catalogue import Data
    from aqr_perception.evaluation.headroom.headroom_table import HeadroomTable
    from aqr_perception.evaluation.headroom.shared_base import SharedBases
    from aqr_perception.evaluation.headroom.variants import Variant
    from aqr_perception.models.config.presets import Preset


def add_headroom(evaluate: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark."""
    headroom = evaluate.add_argument_group(
        "--benchmark headroom",
        "For every failure: NDS with AQR off with the broken sensor's tokens left in, and with them taken out by an "
        "oracle that knows what is broken, by place; what AQR wins of the difference; attention and weights of the "
        "broken sensor; reliability of the weights. For CMT and AQR-CMT. Writes headroom.json, .md, .png and "
        "reliability.png.",
    )
    headroom.add_argument(
        "--oracle-threshold",
        type=float,
        default=0.5,
        metavar="HEALTH",
        help="the oracle takes out places with a health of at most this, 0 to 1 (default: %(default)s)",
    )
    headroom.add_argument(
        "--variants",
        nargs="+",
        metavar="NAME=[MODEL@]CHECKPOINT[:MODE]",
        help="several checkpoints in one table, instead of --checkpoint and --aqr: clean NDS, mean NDS over the "
        "failures, share of clean, cost and headroom won, and every failure's NDS. MODEL is --model where it is left "
        "out, MODE auto. CHECKPOINT may be the headroom.json of an earlier run. Writes ablation.json, .md, .png and "
        "a folder for each variant; an interrupted run continues with the variants that OUTPUT lacks",
    )
    headroom.add_argument(
        "--cost",
        nargs="+",
        default=(),
        metavar="NAME=MS",
        help="milliseconds of a variant's frame for the column of costs: a number, or the file that 'aqr_perception "
        "benchmark --json' wrote",
    )


def check_unused(options: argparse.Namespace) -> None:
    """Refuse the options of `add_headroom` without ``--benchmark headroom``.

    Raises:
        ValueError.
    """
    if options.variants or options.cost:
        name = "--variants" if options.variants else "--cost"
        raise ValueError(f"found {name} with --benchmark {options.benchmark}, needed --benchmark headroom")


def run_headroom(options: argparse.Namespace, open_data: "Callable[[Preset], Data]") -> int:
    """Run the benchmark.

    Args:
        open_data: opens the frames of a preset.
    """
    if options.tracking is not None or options.data == "keyframes" or options.folders:
        found = "--tracking" if options.tracking is not None else "recorded folders"
        raise ValueError(f"found {found} with --benchmark headroom, needed one of the two")
    if options.cost and not options.variants:
        raise ValueError("found --cost without --variants, needed variants whose cost it is")
    return _run_variants(options, open_data) if options.variants else _run_model(options, open_data)


def _run_model(options: argparse.Namespace, open_data: "Callable[[Preset], Data]") -> int:
    from aqr_perception.evaluation.headroom import headroom_report
    from aqr_perception.evaluation.headroom.variants import Variant

    table = _measured(options, open_data, Variant("", options.model, options.checkpoint), options.aqr)
    print(headroom_report.text(table))
    for path in headroom_report.write(table, options.output):
        print(path)
    write_json(options.json, table.as_dict())
    return 0


def _run_variants(options: argparse.Namespace, open_data: "Callable[[Preset], Data]") -> int:
    from aqr_perception.evaluation.headroom import variants
    from aqr_perception.evaluation.headroom.known_failures import chosen_failures
    from aqr_perception.evaluation.headroom.shared_base import SharedBases
    from aqr_perception.evaluation.headroom.variants_plot import plot_variants

    if options.checkpoint is not None:
        raise ValueError(f"found --checkpoint {options.checkpoint} with --variants, which name their own checkpoints")
    asked = variants.parse_variants(options.variants, options.model, options.cost)
    settings = {
        "failures": list(chosen_failures(options.scenarios)),
        "rig": None if options.rig is None else options.rig.read_text(),
        **{name: str(getattr(options, name)) for name in ("data", "data_root", "data_version", "split", "frames")},
        **{name: getattr(options, name) for name in ("world", "skip_bad", "device", "precision", "rules")},
        **{name: getattr(options, name) for name in ("scenario_seed", "oracle_threshold")},
    }
    bases = SharedBases()
    found = variants.measured_variants(
        asked, options.output, settings, lambda variant: _measured(options, open_data, variant, [variant.mode], bases)
    )
    tables = (variants.ablation_table(found), variants.failure_table(found))
    print("\n\n".join(table.text() for table in tables))
    options.output.mkdir(parents=True, exist_ok=True)
    page, figures, picture = (options.output / f"ablation.{suffix}" for suffix in ("md", "json", "png"))
    page.write_text("\n".join(table.markdown() for table in tables))
    content = {variant.name: {**figures_, "cost_ms": variant.cost_ms} for variant, figures_ in found.items()}
    figures.write_text(json.dumps(content, indent=2) + "\n")
    plot_variants(found, picture)
    for path in (page, figures, picture):
        print(path)
    write_json(options.json, content)
    return 0


def _measured(
    options: argparse.Namespace,
    open_data: "Callable[[Preset], Data]",
    variant: "Variant",
    modes: list[str],
    bases: "SharedBases | None" = None,
) -> "HeadroomTable":
    from aqr_perception.detector import Detector
    from aqr_perception.evaluation.headroom.known_failures import chosen_failures
    from aqr_perception.evaluation.headroom.measurement import measure

    failures = chosen_failures(options.scenarios)
    detector = Detector(variant.model, variant.checkpoint, options.device, options.precision)
    data = open_data(detector.model.preset)
    if not data.labelled:
        raise ValueError(f"{options.data_root}: found no annotations, needed them for --benchmark headroom")
    return measure(
        detector,
        data.frames,
        failures,
        modes,  # type: ignore[arg-type]
        seed=options.scenario_seed,
        threshold=options.oracle_threshold,
        workers=options.workers,
        progress=sys.stderr.isatty(),
        rules=options.rules,
        bases=bases,
    )
