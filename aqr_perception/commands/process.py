# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command ``aqr_perception process``: detections in bags, without a running ROS 2."""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aqr_perception.options import OptionError

if TYPE_CHECKING:
    from aqr_perception.offline.bag_run import BagJob, BagOutcome

_log = logging.getLogger(__name__)

_DESCRIPTION = """\
Detect objects in bags (rosbag2: mcap or sqlite3), with the node's steps and parameters, as fast as this machine can.
For each bag, a folder in --output gets outputs.mcap (the node's topics, to play beside the bag), detections.jsonl,
results_nusc.json and report.html. A run that was interrupted goes on where it was when the command is given again."""

_BAR = "{percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} s of bags [{elapsed}<{remaining}{postfix}]"

_ROUNDING = 1e-6
"""Seconds that sums of progress may be above the total."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    process = commands.add_parser("process", help="detect objects in bags", description=_DESCRIPTION)
    process.add_argument("bags", type=Path, nargs="+", metavar="BAG", help="bag, or a folder of bags")
    process.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for a folder of each bag")
    process.add_argument(
        "--params",
        type=Path,
        metavar="FILE",
        help="the node's parameter file (default: the topics of the bag, where they leave no choice)",
    )
    process.add_argument(
        "-p", "--param", action="append", default=[], metavar="NAME:=VALUE", help="one of the node's parameters"
    )
    process.add_argument("--model", help="preset name or .yaml path, instead of the parameter model.preset")
    process.add_argument("--checkpoint", help="weights, instead of the parameter model.checkpoint")
    process.add_argument("--device", help="auto, cpu, cuda or cuda:N, instead of the parameter model.device")
    process.add_argument("--namespace", default="", help="namespace of the node (default: none)")
    process.add_argument(
        "--weight-maps",
        nargs="+",
        choices=("pictures", "raw"),
        default=[],
        help="also write the weight maps: pictures and grid, raw values, or both",
    )
    report = process.add_mutually_exclusive_group()
    report.add_argument(
        "--report-every",
        type=int,
        metavar="N",
        help="pictures of every N-th frame in report.html (default: of about 300 frames, or all if there are fewer)",
    )
    report.add_argument("--no-report", action="store_true", help="write no report.html")
    process.add_argument("--workers", type=int, default=1, help="bags side by side (default: %(default)s)")
    process.add_argument("--redo", action="store_true", help="replace output that was made by other settings")
    fleet = process.add_argument_group("a fleet of machines")
    fleet.add_argument(
        "--ray", metavar="ADDRESS", help="spread bags over a Ray cluster: auto, HOST:PORT, or local for this machine"
    )
    fleet.add_argument("--cpus-per-bag", type=int, default=1, help="cores for one bag on Ray (default: %(default)s)")
    fleet.add_argument("--gpus-per-bag", type=float, default=0.0, help="GPUs for one bag on Ray (default: %(default)s)")
    process.set_defaults(run=_process)


def _process(options: argparse.Namespace) -> int:
    if options.workers < 1:
        raise OptionError(f"--workers is {options.workers}, but must be 1 or more")
    if options.report_every is not None and options.report_every < 1:
        raise OptionError(f"--report-every is {options.report_every}, but must be 1 or more; --no-report leaves it out")
    if options.ray and options.workers > 1:
        raise OptionError("--workers and --ray exclude each other: Ray decides how many bags run at once")
    try:
        from aqr_perception.offline.ros_packages import require_ros
    except ModuleNotFoundError as error:
        raise ValueError(
            "process: found an installation by pip, which has no aqr_perception.offline, needed ROS 2 and the built "
            "package, because bags go through the node's own code; build it with colcon, or run `make setup` in a clone"
        ) from error
    require_ros()
    from aqr_perception.offline.bag_run import BagJob
    from aqr_perception.offline.jobs import bag_paths, output_folders
    from aqr_perception.offline.settings import GivenParameters, settings_for

    given = GivenParameters(options.params, _values(options), options.namespace.strip("/"))
    if given.file is not None:
        settings_for(given, None)  # a wrong file is one error, not one for each bag
    folders = output_folders(bag_paths(options.bags), options.output)
    options.output.mkdir(parents=True, exist_ok=True)
    where = Path.resolve if options.ray else Path.absolute
    report_every = 0 if options.no_report else options.report_every
    jobs = [
        BagJob(where(bag), where(folder), given, tuple(options.weight_maps), options.redo, report_every)
        for bag, folder in folders.items()
    ]
    outcomes = list(_outcomes(jobs, options))
    return _report(jobs, outcomes)


def _outcomes(jobs: "Sequence[BagJob]", options: argparse.Namespace) -> "Iterator[BagOutcome]":
    """Yield the outcome of each bag, and show the progress of all."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from aqr_perception.offline import fleet

    lengths = [_seconds(job.bag) for job in jobs]
    done: dict[int, tuple[float, int]] = {}
    numbers = {job.bag: number for number, job in enumerate(jobs)}
    with logging_redirect_tqdm(), tqdm(total=sum(lengths) + _ROUNDING, bar_format=_BAR) as bar:
        ended = 0

        def show() -> None:
            frames = sum(count for _, count in done.values())
            bar.set_postfix_str(f"{frames} frames, {ended} of {len(jobs)} bags", refresh=False)
            bar.update(sum(seconds for seconds, _ in done.values()) - bar.n)

        def listen(job: int, seconds: float, frames: int) -> None:
            done[job] = (min(seconds, lengths[job]), frames)
            show()

        if options.ray:
            from aqr_perception.offline.ray_fleet import on_ray

            outcomes = on_ray(jobs, options.ray, options.cpus_per_bag, options.gpus_per_bag, listen)
        elif options.workers > 1 and len(jobs) > 1:
            outcomes = fleet.side_by_side(jobs, options.workers, listen)
        else:
            outcomes = fleet.in_turn(jobs, listen)
        for outcome in outcomes:
            ended += 1
            number = numbers[outcome.bag]
            done[number] = (lengths[number], outcome.frames)
            show()
            yield outcome


def _report(jobs: "Sequence[BagJob]", outcomes: "Sequence[BagOutcome]") -> int:
    """Print what became of each bag; return the exit status."""
    by_bag = {outcome.bag: outcome for outcome in outcomes}
    for job in jobs:
        outcome = by_bag[job.bag]
        if outcome.error:
            continue
        text = f"{job.folder}: {outcome.frames} frames"
        if outcome.finished_before:
            text += ", finished before"
        elif outcome.resumed:
            text += f", {outcome.resumed} of them before an interruption"
        if outcome.unanswered:
            text += f"; {outcome.unanswered} more without an answer, see the warnings in state.json"
        print(text)
    failed = [by_bag[job.bag] for job in jobs if by_bag[job.bag].error]
    if failed:
        print(f"aqr_perception: {len(failed)} of {len(jobs)} bags failed:", file=sys.stderr)
        for outcome in failed:
            print(f"  {outcome.bag.name}: {outcome.error}", file=sys.stderr)
    return 1 if failed else 0


def _values(options: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters among the arguments, by name.

    Raises:
        OptionError: one is not NAME:=VALUE.
    """
    import yaml

    values: dict[str, Any] = {}
    for text in options.param:
        name, separator, value = text.partition(":=")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise OptionError(f"--param {text!r}: found invalid YAML, needed NAME:=VALUE") from error
        if not separator or not name:
            raise OptionError(f"--param is {text!r}, but must be NAME:=VALUE")
    chosen = {"model.preset": options.model, "model.checkpoint": options.checkpoint, "model.device": options.device}
    return values | {name: value for name, value in chosen.items() if value is not None}


def _seconds(bag: Path) -> float:
    """Return the length of a bag; 0 if it is broken, which its outcome says."""
    from aqr_perception.bags.errors import BagError
    from aqr_perception.bags.reader import BagReader

    try:
        with BagReader(bag) as reader:
            return (reader.end_ns - reader.start_ns) / 1e9
    except BagError:
        return 0.0
