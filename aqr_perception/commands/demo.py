# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command ``aqr_perception demo``: a drive with failing sensors played into the node, and its report."""

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from aqr_perception.commands.model_option import add_model

if TYPE_CHECKING:
    from aqr_perception.demo.recorded_drive import RecordedDrive
    from aqr_perception.demo.recording import Recording
    from aqr_perception.demo.simulated_drive import DemoDrive
    from aqr_perception.models.config.presets import Preset


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    demo = commands.add_parser(
        "demo",
        help="play a simulated drive with failing sensors and write a report",
        description="Simulate a drive and play it into the perception node while a camera turns black, the LiDAR drops "
        "out, a lens is dirty and a camera is misaligned. Writes report.html. Needs ROS 2 and the built package.",
    )
    demo.add_argument("folder", type=Path, nargs="?", default=Path("demo"), help="output folder (default: %(default)s)")
    add_model(demo)
    demo.add_argument(
        "--checkpoint",
        help="path of the weights, or 'random' (default: the weights shipped for the preset, or random weights if "
        "there are none)",
    )
    demo.add_argument(
        "--rate",
        type=float,
        default=1.0,
        help="largest playback speed; 1 is real time (default: %(default)s). The playback waits for a slower node, so "
        "that every sweep has detections",
    )
    demo.add_argument(
        "--pictures-every",
        type=int,
        default=1,
        metavar="N",
        help="pictures of every N-th frame only, for a smaller report (default: %(default)s)",
    )
    demo.add_argument("--film", action="store_true", help="also write a film, drive.mp4, which takes minutes")
    demo.add_argument("--rviz", action="store_true", help="also show the drive in RViz")
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    # Slow imports and imports that need ROS 2 are local, because other commands do not need them.
    import logging

    from aqr_perception.demo.drive_report import RANDOM_WEIGHTS_WARNING
    from aqr_perception.demo.simulated_drive import DemoDrive
    from aqr_perception.models.config.presets import load_preset
    from aqr_perception.models.weights.shipped import choose_weights

    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    started = time.monotonic()
    preset = load_preset(options.model)
    weights = choose_weights(options.model, options.checkpoint)
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    drive = DemoDrive()
    if weights.path is None:
        _warn(f"{options.model} has no weights; give some with --checkpoint. {RANDOM_WEIGHTS_WARNING}")
    else:
        print(f"{options.model} runs with {weights}")

    spent = _Clock()
    print(f"1/3 simulating {drive.seconds:g} s, or reusing {folder / drive.file_name}", flush=True)
    bag = drive.ensure_bag(folder, sys.stderr.isatty())
    spent.add("simulation")
    print(f"2/3 playing the drive into the node, at most at {options.rate:g} times real time", flush=True)
    recording = _play(bag, weights.path, options)
    spent.add("playback")
    print("3/3 writing the report", flush=True)
    recorded = _recorded_drive(recording, bag, drive, preset)
    files = _write_outputs(recorded, drive, options)
    spent.add("report")

    if weights.path is None:
        _warn(RANDOM_WEIGHTS_WARNING)
    _print_summary(recorded)
    print(f"Done in {time.monotonic() - started:.0f} s ({spent}). Open {' and '.join(map(str, files))}")
    return 0


class _Clock:
    """Seconds of the parts of a run."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._parts: list[str] = []

    def add(self, name: str) -> None:
        """Note the seconds since the part before."""
        now = time.monotonic()
        self._parts.append(f"{name} {now - self._last:.0f} s")
        self._last = now

    def __str__(self) -> str:
        return ", ".join(self._parts)


def _play(bag: Path, checkpoint: Path | None, options: argparse.Namespace) -> "Recording":
    """Play the bag into the node, with RViz if requested; return the node's outputs."""
    from aqr_perception.demo import rviz
    from aqr_perception.demo.failures import FAILURES
    from aqr_perception.demo.live.session import DemoError, Session
    from aqr_perception.models.config.presets import preset_directory

    config = preset_directory().parent
    session = Session(
        config / "demo.yaml",
        options.model,
        None if checkpoint is None else checkpoint.absolute(),
        options.folder / "node.log",
        options.rate,
        # With random weights all scores are low; show a few boxes anyway.
        () if checkpoint is not None else ("score_threshold:=0.0", "max_detections:=30"),
        sys.stderr.isatty(),
    )
    show_rviz = options.rviz
    if show_rviz and (reason := rviz.unavailable_reason()):
        print(reason)
        show_rviz = False
    with rviz.open_rviz(config / "demo.yaml") if show_rviz else contextlib.nullcontext():
        recording = session.play(bag, FAILURES)
    if not recording.frames:
        raise DemoError(f"the node published no detections; read its log, {session.log}")
    return recording


def _recorded_drive(recording: "Recording", bag: Path, drive: "DemoDrive", preset: "Preset") -> "RecordedDrive":
    from aqr_perception.demo.failures import FAILURES
    from aqr_perception.demo.recorded_drive import RecordedDrive
    from aqr_perception.demo.truth import read_truth

    # The node's BEV pictures show the point range; the BEV features may cover less of it.
    x_min, y_min, _, x_max, y_max, _ = preset.point_range
    return RecordedDrive(
        recording,
        read_truth(bag),
        FAILURES,
        drive.seconds,
        (x_min, y_min, x_max, y_max),
        preset.bev_range,
        (0, 0) if preset.image is None else preset.image.size,
    )


def _write_outputs(recorded: "RecordedDrive", drive: "DemoDrive", options: argparse.Namespace) -> list[Path]:
    """Write the report and the film; return their paths."""
    from aqr_perception.demo.drive_report import RANDOM_WEIGHTS_WARNING, write_report
    from aqr_perception.demo.film import write_film
    from aqr_perception.demo.pictures import FilmFrames

    report = options.folder / "report.html"
    write_report(report, recorded, _notes(drive, recorded, options.film), options.pictures_every)
    if not options.film:
        return [report.resolve()]
    notice = "" if recorded.recording.trained else RANDOM_WEIGHTS_WARNING
    film = write_film(FilmFrames(recorded, notice), options.folder / "drive.mp4", drive.rate)
    return [report.resolve(), film.resolve()]


def _notes(drive: "DemoDrive", recorded: "RecordedDrive", film: bool) -> list[str]:
    return [
        f"Scene {drive.seed} of the simulator, which is not in the training data, at {drive.rate:g} sweeps per second. "
        f"{_speed(recorded)}",
        f"Frames that the node dropped for newer ones: {recorded.recording.frames_dropped}.",
        "Made by `aqr_perception demo`" + ("; drive.mp4 in the same folder shows every sweep." if film else "."),
    ]


def _speed(recorded: "RecordedDrive") -> str:
    """Return a sentence about the speed of the playback."""
    recording = recorded.recording
    return (
        f"Played at {recorded.seconds / recording.seconds:.2f} times real time on {os.cpu_count()} processor cores: it "
        f"took {recording.seconds:.0f} s, of which playback waited {recording.seconds_held:.0f} s for the node."
    )


def _print_summary(recorded: "RecordedDrive") -> None:
    for label, value in recorded.summary.lines():
        print(f"  {label + ':':<40} {value}")
    print(_speed(recorded))
    if missing := recorded.unanswered():
        print(f"Sweeps without detections: those at {', '.join(f'{seconds:.1f}' for seconds in missing)} s.")


def _warn(text: str) -> None:
    print(f"\n*** WARNING: {text} ***\n", flush=True)
