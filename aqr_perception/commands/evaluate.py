# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command ``aqr_perception evaluate``: nuScenes metrics under sensor failures."""

import argparse
import dataclasses
import itertools
import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aqr_perception.commands.evaluating.headroom_run import add_headroom, check_unused, run_headroom
from aqr_perception.commands.evaluating.multicorrupt_run import run_multicorrupt
from aqr_perception.commands.evaluating.tracking_run import run_tracking
from aqr_perception.commands.model_option import add_model, routed_detector
from aqr_perception.commands.output import result_line, write_json
from aqr_perception.commands.train import add_data

if TYPE_CHECKING:
    from aqr_perception.data.sources.catalogue import Data
    from aqr_perception.models.config.presets import Preset

_log = logging.getLogger(__name__)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    evaluate = commands.add_parser(
        "evaluate",
        help="measure nuScenes detection metrics with all sensors and with failing sensors",
        description="Score a model with the nuScenes metrics: without failures and in every failure scenario, with AQR "
        "off and on. Writes robustness.json, .md and .png, and for nuScenes its result file, results_nusc.json; for "
        "tables without annotations (the test split) the result file alone.",
    )
    add_model(evaluate)
    evaluate.add_argument(
        "--checkpoint",
        help="weights file, or 'random' (default: weights shipped for the preset, otherwise random)",
    )
    evaluate.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    evaluate.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16 (default: %(default)s)")
    evaluate.add_argument(
        "--scenarios",
        nargs="+",
        metavar="NAME",
        help="failure scenarios or groups, in addition to clean: published (default), further (turned, late or dirty "
        "cameras, shifted or shaking LiDAR, ghost objects, fog), all; with --benchmark multicorrupt "
        "its corruptions, and with headroom also black, noisy and single cameras (default: all)",
    )
    evaluate.add_argument(
        "--benchmark",
        choices=("robustness", "multicorrupt", "headroom"),
        default="robustness",
        help="robustness: MoME's failures; multicorrupt: the ten corruptions of MultiCorrupt at three severities, with "
        "its resistance abilities RA and mRA, in multicorrupt.json, .md and .png; headroom: what AQR can win in every "
        "failure and what it wins, see below (default: %(default)s)",
    )
    evaluate.add_argument(
        "--baseline",
        type=Path,
        metavar="RESULT.json",
        help="with --benchmark multicorrupt: multicorrupt.json of another model on the same data, for the relative "
        "resistance abilities RRA and mRRA",
    )
    evaluate.add_argument(
        "--aqr",
        nargs="+",
        default=("off", "auto"),
        metavar="MODE",
        help="off, auto, modulation, bias, both or gate (default: off auto)",
    )
    evaluate.add_argument(
        "--scenario-seed", type=int, default=0, help="random seed of the failures (default: %(default)s)"
    )
    evaluate.add_argument(
        "--tracking",
        type=int,
        nargs="?",
        const=0,
        metavar="DRIVES",
        help="instead: track the objects of this many drives (default: 20 simulated ones, or all of the data), and "
        "print nuScenes' AMOTA, AMOTP, switches and fragmentations beside a nearest-neighbour baseline, with all "
        "sensors and with failing ones. An interrupted run continues with the drives that OUTPUT/tracking lacks",
    )
    evaluate.add_argument(
        "--drive-seconds",
        type=float,
        default=20.0,
        metavar="S",
        help="length of a simulated drive with --tracking (default: %(default)s)",
    )
    evaluate.add_argument("--no-history", action="store_true", help="evaluate models with memory on single frames")
    evaluate.add_argument(
        "--workers",
        type=int,
        default=1,
        help="processes that share the frames, one thread each (default: %(default)s)",
    )
    evaluate.add_argument(
        "--output", type=Path, default=Path("evaluation"), help="output folder (default: %(default)s)"
    )
    evaluate.add_argument("--json", type=Path, help="also write the figures to this file")
    evaluate.add_argument(
        "--rules",
        choices=("devkit", "own"),
        help="devkit: as nuscenes-devkit's DetectionEval; own: attributes derived from speeds on both sides, and means "
        "over the classes in the truth (default: devkit for nuScenes with its ten classes, otherwise own)",
    )
    data = evaluate.add_argument_group("data")
    add_data(data, ", keyframes FOLDER...")
    data.add_argument(
        "--split",
        nargs="+",
        metavar="SPLIT",
        help="nuScenes' scenes: a split of nuScenes or of the version's splits.json, FILE.json (a list of scenes, or "
        "splits by name: FILE.json:NAME), FILE.txt (a scene a line), or names of scenes (default: val, or mini_val)",
    )
    data.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="with --data keyframes: recorded data with labels (as for 'convert'); reports recall and false alarms of "
        "cars and pedestrians for LiDAR and cameras, together and alone, instead of nuScenes' metrics",
    )
    data.add_argument(
        "--thresholds",
        nargs="+",
        type=float,
        metavar="SCORE",
        help="with --data keyframes: lowest scores of detections, with a table for each (default: 0.3)",
    )
    add_headroom(evaluate)
    evaluate.set_defaults(run=_evaluate)


def _data(options: argparse.Namespace, preset: "Preset") -> "Data":
    """Return the data that `train.add_data`'s options and ``--split`` choose."""
    from aqr_perception.data.sources.catalogue import open_data

    return open_data(
        options.data,
        "val",
        preset,
        options.data_root,
        options.frames,
        options.data_version,
        options.split,
        options.rig,
        options.skip_bad,
        options.world,
    )


def _evaluate_keyframes(options: argparse.Namespace) -> int:
    from aqr_perception.data.recordings.recognition import open_recording
    from aqr_perception.detector import Detector
    from aqr_perception.evaluation import keyframe_recall

    if options.world is not None:
        raise ValueError(f"--world {options.world} with --data keyframes: needed only with --data synthetic")
    if not options.folders:
        raise ValueError("--data keyframes: found no folder, needed at least one: --data keyframes FOLDER...")
    recordings = [open_recording(folder) for folder in options.folders]
    detector = Detector(options.model, options.checkpoint, options.device, options.precision)
    rows = keyframe_recall.keyframe_recall(detector, recordings, options.thresholds or (), sys.stderr.isatty())
    for threshold, of_threshold in itertools.groupby(rows, key=lambda row: row.score_threshold):
        print(f"Score threshold {threshold:g}:\n{keyframe_recall.recall_table(list(of_threshold))}")
    print(keyframe_recall.RULE)
    write_json(options.json, list(map(dataclasses.asdict, rows)))
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    if options.baseline is not None and options.benchmark != "multicorrupt":
        raise ValueError(f"--baseline {options.baseline}: needed only with --benchmark multicorrupt")
    open_data = partial(_data, options)
    if options.benchmark == "headroom":
        return run_headroom(options, open_data)
    check_unused(options)
    if options.benchmark == "multicorrupt" and (options.tracking is not None or options.data == "keyframes"):
        other = "--data keyframes" if options.tracking is None else "--tracking"
        raise ValueError(f"--benchmark {options.benchmark} with {other}: needed one of them")
    if options.tracking is not None:
        return run_tracking(options, open_data)
    if options.thresholds and options.data != "keyframes":
        raise ValueError(f"found --thresholds with --data {options.data}, needed --data keyframes")
    if options.data == "keyframes":
        return _evaluate_keyframes(options)
    if options.folders:
        raise ValueError(f"found {options.folders[0]} after the options, needed it with --data keyframes only")
    if options.benchmark == "multicorrupt":
        return run_multicorrupt(options, open_data)
    # The imports below take seconds.
    _log.info("loading PyTorch and the model %s", options.model)
    from aqr_perception.data.sequences import HISTORY_FRAMES
    from aqr_perception.evaluation import nuscenes_results, report, robustness
    from aqr_perception.evaluation.scenarios import chosen

    scenarios = chosen(options.scenarios)
    detector = routed_detector(options)
    data = open_data(detector.model.preset)
    history = 0 if options.no_history else HISTORY_FRAMES
    results = options.output / nuscenes_results.FILE_NAME
    if not data.labelled:
        mode = options.aqr[-1]
        found = nuscenes_results.detect(detector, data.frames, mode, history=history, workers=options.workers)
        count = nuscenes_results.write_results(results, found, detector.uses_cameras, detector.uses_lidar)
        print(f"{count} samples without annotations: detected, not scored; no scenarios, no robustness table")
        print(result_line(results, options.frames))
        return 0
    table = robustness.run(
        detector,
        data.frames,
        scenarios,
        options.aqr,
        seed=options.scenario_seed,
        history=history,
        workers=options.workers,
        rules=options.rules,
        result_file=results,
    )
    if "auto" in table.modes:
        table = dataclasses.replace(table, auto_mode=detector.model.preset.aqr.mode)
    print(report.text(table))
    if table.auto_mode is not None:
        print(f"AQR on: mode {table.auto_mode}, as in preset {table.model}")
    for path in report.write(table, options.output):
        print(path)
    if options.data == "nuscenes":
        print(result_line(results, options.frames))
    write_json(options.json, table.as_dict())
    return 0
