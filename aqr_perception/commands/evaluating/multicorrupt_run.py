# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""``aqr_perception evaluate --benchmark multicorrupt``: resistance abilities, alone and against a baseline."""

import argparse
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from aqr_perception.commands.model_option import routed_detector
from aqr_perception.commands.output import write_json

if TYPE_CHECKING:
    from aqr_perception.data.sources.catalogue import Data
    from aqr_perception.models.config.presets import Preset

_log = logging.getLogger(__name__)


def run_multicorrupt(options: argparse.Namespace, open_data: "Callable[[Preset], Data]") -> int:
    """Run the benchmark.

    Args:
        open_data: opens the frames of a preset.
    """
    _log.info("loading PyTorch and the model %s", options.model)
    from aqr_perception.data.sequences import HISTORY_FRAMES
    from aqr_perception.evaluation.benchmarks import benchmark_run, resistance, resistance_report

    corruptions = benchmark_run.chosen_corruptions(options.scenarios)
    # Before the run, which takes long.
    baseline = None if options.baseline is None else resistance.read_baseline(options.baseline)
    detector = routed_detector(options)
    data = open_data(detector.model.preset)
    if not data.labelled:
        raise ValueError(f"{options.data_root}: found no annotations, needed them to score a benchmark")
    origin = resistance.data_of(options.data, options.world, options.data_version, options.split)
    if baseline is not None:
        known = {"data": origin, "frames": len(data.frames), "seed": options.scenario_seed}
        resistance.check_baseline(options.baseline, baseline, known, ())
    result = benchmark_run.run_multicorrupt(
        detector,
        data.frames,
        origin,
        options.aqr,
        corruptions,
        seed=options.scenario_seed,
        history=0 if options.no_history else HISTORY_FRAMES,
        workers=options.workers,
        rules=options.rules,
    )
    if "auto" in result.table.modes:
        result = result.with_auto_mode(detector.model.preset.aqr.mode)
    problem = None
    if baseline is not None:
        try:
            result = resistance.with_baseline(result, options.baseline, baseline)
        except ValueError as error:
            problem = error  # raised when this run's own figures are written
    print(resistance_report.text(result))
    for path in resistance_report.write(result, options.output):
        print(path)
    write_json(options.json, result.as_dict())
    if problem is not None:
        raise problem
    return 0
