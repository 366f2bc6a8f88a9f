"""``aqr_perception demo``: a drive with failing sensors through the real node, and a report of how it went."""

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aqr_perception.demo.simulated_drive import DemoDrive

_FEW = 0.8
"""Share of the frames; where fewer are answered, the machine could not keep up."""


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    demo = commands.add_parser(
        "demo",
        help="a simulated drive with failing sensors, and a report",
        description="Simulate a drive, play it into the node while a camera goes black and the LiDAR fails, and write "
        "report.html and drive.mp4. Needs ROS 2 and the built package.",
    )
    demo.add_argument("folder", type=Path, nargs="?", default=Path("demo"), help="to write to (default: %(default)s)")
    demo.add_argument("--model", default="aqr_tiny", help="preset (default: %(default)s)")
    demo.add_argument(
        "--checkpoint", help="weights, or 'random' (default: those shipped for the preset; without any, random ones)"
    )
    demo.add_argument(
        "--rate", type=float, default=0.25, help="seconds of the drive in a second (default: %(default)s)"
    )
    demo.add_argument("--rviz", action="store_true", help="show it in RViz too")
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    # Imports that take seconds, or need ROS 2, stay inside.
    import logging

    from aqr_perception.demo import rviz
    from aqr_perception.demo.drive_report import MEANINGLESS, write_report
    from aqr_perception.demo.failures import FAILURES
    from aqr_perception.demo.film import write_film
    from aqr_perception.demo.live.session import DemoError, Session
    from aqr_perception.demo.pictures import Sheets
    from aqr_perception.demo.played import PlayedDrive
    from aqr_perception.demo.simulated_drive import DemoDrive
    from aqr_perception.demo.truth import read_truth
    from aqr_perception.models.config.presets import load_preset, preset_directory
    from aqr_perception.models.weights.shipped import choose_weights

    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    preset = load_preset(options.model)
    weights = choose_weights(options.model, options.checkpoint)
    checkpoint = weights.path
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    progress = sys.stderr.isatty()
    drive, config = DemoDrive(), preset_directory().parent
    if checkpoint is None:
        _warn(f"{options.model} has no weights; give some with --checkpoint. {MEANINGLESS}")
    else:
        print(f"{options.model} runs with {weights}")
    show = _rviz(options.rviz, config)

    begun = time.monotonic()
    print(f"1/3 simulating {drive.seconds:g} s, or taking them from {folder / drive.file_name}", flush=True)
    bag = drive.bag(folder, progress)
    print(f"2/3 playing them into the node, at {options.rate:g} of their speed", flush=True)
    session = Session(
        config / "demo.yaml",
        options.model,
        None if checkpoint is None else checkpoint.absolute(),
        folder / "node.log",
        options.rate,
        # Nothing scores high with random weights: a few boxes show what pictures would look like.
        () if checkpoint is not None else ("score_threshold:=0.0", "max_detections:=30"),
        progress,
    )
    with rviz.opened(config / "aqr_perception.rviz") if show else contextlib.nullcontext():
        recording = session.play(bag, FAILURES)
    if not recording.answers:
        raise DemoError(f"the node published nothing; see {session.log}")
    print("3/3 writing the report", flush=True)
    x_min, y_min, _, x_max, y_max, _ = preset.point_range
    played = PlayedDrive(recording, read_truth(bag), FAILURES, drive.seconds, (x_min, y_min, x_max, y_max))
    report = folder / "report.html"
    write_report(report, played, _facts(drive, options.rate, recording.frames_dropped))
    film = write_film(Sheets(played, "" if checkpoint else MEANINGLESS), folder / "drive.mp4", drive.rate)
    if checkpoint is None:
        _warn(MEANINGLESS)
    for name, value in played.summary.lines():
        print(f"  {name + ':':<40} {value}")
    if played.summary.answered < _FEW * played.summary.frames:
        slower = options.rate / 2
        print(f"This machine was too busy for that pace; `make demo RATE={slower:g}` plays the drive more slowly.")
    print(f"Done in {time.monotonic() - begun:.0f} s. Open {report.resolve()} and {film.resolve()}")
    return 0


def _facts(drive: "DemoDrive", rate: float, dropped: int) -> list[str]:
    return [
        f"Scene {drive.seed} of the simulator, which no training has seen, at {drive.rate:g} frames a second; played "
        f"at {rate:g} of its speed on {os.cpu_count()} processor cores.",
        f"Frames that the node left out because a newer one was there: {dropped}.",
        "Made by `aqr_perception demo`; the film beside this page shows every frame.",
    ]


def _rviz(wanted: bool, config: Path) -> bool:
    from aqr_perception.demo import rviz

    if not wanted:
        return False
    if reason := rviz.why_not():
        print(reason)
        return False
    return True


def _warn(text: str) -> None:
    print(f"\n*** WARNING: {text} ***\n", flush=True)
