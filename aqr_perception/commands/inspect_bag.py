# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Commands ``aqr_perception inspect bag`` and ``inspect live``: what is there, and whether the node can run it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from aqr_perception.commands.output import write_json

if TYPE_CHECKING:
    from aqr_perception.inspection.assessment import Inspection

_DEFAULT_SECONDS = 10.0
_STATUS = "Status: 0 if the node can run it, 2 if it cannot, 1 for what cannot be read."
_WHAT = (
    "topics, types, rates and gaps; stamps (stagger, latency, clocks that differ); the TF tree; calibrations; layout "
    "and intensities of point clouds; and all that would keep the node from using it, by the node's own checks"
)


def add(subjects: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both subjects to ``inspect``."""
    bag = subjects.add_parser(
        "bag",
        help="what is in a bag, and whether the node can run it; writes a parameter file for it",
        description=f"Report on a rosbag2 (mcap or sqlite3, folder or file): {_WHAT}.",
        epilog=f"{_STATUS} The word 'bag' may be left out.",
    )
    bag.add_argument("path", type=Path, metavar="BAG", help="folder of a rosbag2, or a single .mcap or .db3 file")
    bag.add_argument(
        "--limit",
        type=float,
        metavar="S",
        help="read S seconds of the bag, in parts spread over it (default: all, or parts of 4 GB of a larger bag)",
    )
    _add_outputs(bag)
    bag.set_defaults(run=_inspect_bag)
    live = subjects.add_parser(
        "live",
        help="the same of a running ROS system (also: inspect --live)",
        description=f"Listen to a running ROS 2 system and report on it: {_WHAT}.",
        epilog=f"{_STATUS} Needs ROS 2 (rclpy). Also written: inspect --live.",
    )
    live.add_argument(
        "--seconds", type=float, default=_DEFAULT_SECONDS, metavar="S", help="time to listen (default: %(default)g)"
    )
    _add_outputs(live)
    live.set_defaults(run=_inspect_live)


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--params",
        type=Path,
        metavar="OUT.yaml",
        help="write a parameter file for the node, with the reasons for its values",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with the report and the TF tree drawn")
    parser.add_argument("--tf", type=Path, metavar="FILE.svg", help="write the TF tree as a picture")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON, too")
    parser.add_argument(
        "--model",
        default="aqr_tiny",
        help="preset that the model frame and the parameter file are for (default: %(default)s)",
    )


def _inspect_bag(options: argparse.Namespace) -> int:
    from aqr_perception.inspection.assessment import inspect_observations
    from aqr_perception.inspection.bag_reading import read_bag
    from aqr_perception.models.config.presets import load_preset

    if options.limit is not None and not 0 < options.limit < float("inf"):
        raise ValueError(f"--limit: found {options.limit}, needed a positive number of seconds")
    _check_outputs(options)
    placement = load_preset(options.model).model_frame
    read = read_bag(options.path, options.limit, progress=True)
    found = inspect_observations(read.observations, str(options.path), placement, read, read.problems)
    return _report(found, options)


def _inspect_live(options: argparse.Namespace) -> int:
    from aqr_perception.models.config.presets import load_preset

    if not 0 < options.seconds < float("inf"):
        raise ValueError(f"--seconds: found {options.seconds}, needed a positive number")
    _check_outputs(options)
    placement = load_preset(options.model).model_frame
    try:
        from aqr_perception.inspection.live.listening import listen
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("aqr_perception"):
            raise
        raise ValueError(
            f"inspect --live: found no {error.name}, needed ROS 2; source its setup (. /opt/ros/DISTRO/setup.bash) in "
            "this shell, or inspect a recorded bag"
        ) from error
    from aqr_perception.inspection.assessment import inspect_observations

    heard, problems = listen(options.seconds)
    return _report(inspect_observations(heard, "running system", placement, None, problems), options)


def _check_outputs(options: argparse.Namespace) -> None:
    """Check the files to write before the long work."""
    if options.params is not None and options.params.exists():
        found = f"--params {options.params}: found an existing file"
        raise ValueError(f"{found}, needed a new name; remove it or choose another")
    for path in (options.params, options.html, options.tf, options.json):
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"{path}: found no folder {path.parent}, needed an existing one; create it")


def _report(found: "Inspection", options: argparse.Namespace) -> int:
    from aqr_perception.inspection.reports.json_report import json_report
    from aqr_perception.inspection.reports.report_page import report_page, sensor_frames
    from aqr_perception.inspection.reports.starting_parameters import starting_parameters, write_parameters
    from aqr_perception.inspection.reports.text_report import text_report
    from aqr_perception.inspection.reports.tf_picture import tf_picture

    for line in text_report(found):
        print(line)
    write_json(options.json, json_report(found))
    if options.html is not None:
        options.html.write_text(report_page(found))
    if options.tf is not None:
        options.tf.write_text(tf_picture(found.tree, sensor_frames(found)))
    if options.params is not None:
        write_parameters(options.params, starting_parameters(found, options.model))
        print(f"\n{options.params}")
    return 0 if found.runs else 2
