# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command ``aqr_perception inspect``: reports on files."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aqr_perception.commands import inspect_bag
from aqr_perception.commands.output import write_json

if TYPE_CHECKING:
    from aqr_perception.calibration.check import CameraCheck
    from aqr_perception.frame import Frame
    from aqr_perception.models.weights.inspection import Inspection, WeightsReport

_SUBJECTS = ("bag", "live", "checkpoint", "calibration")
_WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors")
_NO_WEIGHTS = (".mcap", ".db3", ".bag", ".yaml", ".json", ".html", ".svg")
_LABEL = 14
_HARMFUL = ("NaN", "infinite", "running_var 0 or less")
_ENTRIES = 12


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    subjects = commands.add_parser(
        "inspect",
        help="say what a bag, a running system or a checkpoint is, and whether it runs",
        description="Report on a bag, a running system, a checkpoint, or the calibration in a bag. Of a path alone, "
        "the kind is recognised: `inspect PATH`, and `inspect --live`.",
    ).add_subparsers(required=True, metavar="WHAT")
    inspect_bag.add(subjects)
    checkpoint = subjects.add_parser(
        "checkpoint",
        help="what a .pth, .pt, .ckpt or .safetensors file is, and which preset it fits",
        description="Report on a file of weights: its format, the model preset that fits or the nearest one and what "
        "is missing, the variant of AQR and its bias_scale, classes, precision, odd values (NaN, infinite, zeros), "
        "averages and optimiser states inside, epoch and configuration. Code in the file is never run: objects other "
        "than tensors and plain values are named, not loaded.",
        epilog="Status: 0 for a readable file, 1 with a reason for others. To load the file, give the preset as "
        "--model and the file as --checkpoint.",
    )
    checkpoint.add_argument("file", type=Path, metavar="FILE", help="file to read")
    checkpoint.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the report, with all keys, to this file"
    )
    checkpoint.set_defaults(run=_inspect_checkpoint)
    calibration = subjects.add_parser(
        "calibration",
        help="whether each camera's rotation agrees with the LiDAR in a bag or in recorded data",
        description="Compare the pictures with the points on them (mutual information of how they look, over several "
        "frames), and estimate the rotation that each camera's calibration lacks. 'off': the rotation is certain and "
        "0.6 degrees or more (1.5 with few points); 'fits': no such rotation; 'unclear': not "
        "visible in these pictures.",
        epilog="Status: 0 if no camera is off, 2 if one is, 1 for data that cannot be read.",
    )
    calibration.add_argument(
        "source", type=Path, metavar="BAG_OR_FOLDER", help="bag, or recorded data as for 'convert'"
    )
    calibration.add_argument("--frames", type=int, default=3, help="sweeps to compare (default: %(default)s)")
    calibration.add_argument("--scene", help="name of the scene, where the folder holds several")
    calibration.add_argument("--data-version", help="folder of the nuScenes tables, where there are several")
    calibration.add_argument("--rig", type=Path, help="rig file with the topics and frames of the bag")
    calibration.add_argument(
        "--output", type=Path, metavar="DIR", help="write pictures with the points before and after the rotation"
    )
    calibration.add_argument("--json", type=Path, metavar="FILE", help="also write the findings to this file")
    calibration.set_defaults(run=_inspect_calibration)


def with_subject(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of the command line with ``inspect PATH`` completed by what the path is."""
    given = list(arguments)
    if given[:1] != ["inspect"] or len(given) < 2 or given[1] in (*_SUBJECTS, "-h", "--help"):
        return given
    if "--live" in given:
        return ["inspect", "live", *(one for one in given[1:] if one != "--live")]
    return ["inspect", "checkpoint" if any(_is_checkpoint(Path(one)) for one in given[1:]) else "bag", *given[1:]]


def _is_checkpoint(path: Path) -> bool:
    """Return whether a path is a file of weights: by its ending, or a file that is no bag and no output."""
    return path.suffix in _WEIGHTS or (path.is_file() and path.suffix not in _NO_WEIGHTS)


def _inspect_checkpoint(options: argparse.Namespace) -> int:
    from aqr_perception.models.weights.inspection import inspect_checkpoint

    report = inspect_checkpoint(options.file)
    for label, text in _rows(report):
        print(f"{label:<{_LABEL}}{text}".rstrip())
    write_json(options.json, report.as_dict())
    return 0


def _inspect_calibration(options: argparse.Namespace) -> int:
    import cv2
    from tqdm import tqdm

    from aqr_perception.calibration.check import check_calibration
    from aqr_perception.calibration.overlay import overlay

    if options.frames < 1:
        raise ValueError(f"--frames: found {options.frames}, needed 1 or more")
    frames = list(_calibration_frames(options))
    cameras = {view.name for frame in frames for view in frame.cameras}
    if not cameras:
        raise ValueError(f"{options.source}: found no image near a sweep, needed at least one camera with pictures")
    checks = []
    progress = tqdm(total=len(cameras), unit="camera", desc="comparing", disable=not sys.stderr.isatty())
    for check in check_calibration(frames):
        checks.append(check)
        progress.update()
        progress.write(_calibration_line(check), file=sys.stdout)
        if options.output is not None and check.alignment is not None:
            options.output.mkdir(parents=True, exist_ok=True)
            frame, view = next((f, v) for f in frames for v in f.cameras if v.name == check.camera)
            assert frame.points is not None
            path = options.output / f"{check.camera}.jpg"
            cv2.imwrite(str(path), overlay(view, frame.points, check.alignment.rotation))
            progress.write(f"{'':<{_LABEL}}{path}", file=sys.stdout)
    progress.close()
    off = [check.camera for check in checks if check.verdict == "off"]
    print(f"{'cameras off':<{_LABEL}}{', '.join(off) or 'none'}")
    write_json(options.json, [_calibration_entry(check) for check in checks])
    return 2 if off else 0


def _calibration_frames(options: argparse.Namespace) -> "Iterator[Frame]":
    from itertools import islice

    from aqr_perception.data.recordings.bag_frames import bag_frames, is_bag
    from aqr_perception.data.recordings.recognition import open_recording
    from aqr_perception.data.recordings.recorded_frames import recorded_frames
    from aqr_perception.data.rig_file import read_rig

    if is_bag(options.source):
        rig = None if options.rig is None else read_rig(options.rig)
        yield from bag_frames(options.source, options.frames, rig)
        return
    recording = open_recording(options.source, options.scene, options.data_version)
    step = max(1, len(recording.sweeps) // options.frames)
    for recorded in islice(recorded_frames(recording), 0, step * options.frames, step):
        yield recorded.frame()


def _calibration_line(check: "CameraCheck") -> str:
    found = check.alignment
    if found is None:
        return f"{check.camera:<{_LABEL}}{check.verdict}: too few points in {check.frames} pictures"
    turn = ", ".join(f"{value:+.2f}" for value in found.rotation)
    return (
        f"{check.camera:<{_LABEL}}{check.verdict}: turn by ({turn}) degrees about x right, y down, z forward "
        f"({found.angle:.2f} in all, {check.shift:.0f} px; spread {found.spread:.2f}, better in {found.better:.0%} of "
        f"resamplings, {check.frames} pictures)"
    )


def _calibration_entry(check: "CameraCheck") -> dict[str, object]:
    found = check.alignment
    entry: dict[str, object] = {"camera": check.camera, "verdict": check.verdict, "frames": check.frames}
    if found is not None:
        entry |= {"rotation_deg": found.rotation.tolist(), "angle_deg": found.angle, "spread_deg": found.spread}
        entry |= {"better_share": found.better, "shift_px": check.shift, "points": found.points}
    return entry


def _rows(report: "Inspection") -> Iterator[tuple[str, str]]:
    """Return the label and the text of each line; continued lines have no label."""
    yield "file", report.file
    yield "format", f"{report.format}, {_size(report.bytes)}"
    if report.weights is None:
        yield "weights", f"none: {report.problem}"
    else:
        yield from _weight_rows(report.weights)
    yield from _class_rows(report)
    if report.weights is not None:
        yield from _labelled("AQR", report.weights.router.description)
        yield from _labelled("not in keys", _untold_lines(report.weights))
        yield from _odd_rows(report.weights.odd_values)
        yield from _labelled("note", report.weights.notes)
    yield from _labelled("also inside", _entry_lines(report))
    training = report.training
    said = [f"{name} {value}" for name, value in (*training.progress.items(), *training.versions.items())]
    yield from _labelled("training", [", ".join(said)] if said else [])
    yield from _labelled("config", training.first_lines)
    yield from _labelled("config on AQR", training.aqr_lines)
    yield from _labelled("not loaded", report.not_loaded)


def _weight_rows(weights: "WeightsReport") -> Iterator[tuple[str, str]]:
    if weights.presets:
        names = [*weights.presets, *(name for name in weights.presets_without_router if name not in weights.presets)]
        without = ", without its query router (AQR off)"
        fits = [f"{name}{without if name in weights.presets_without_router else ''}" for name in names]
        yield from _labelled("fits", fits)
    elif weights.nearest is not None:
        yield "fits", f"no shipped preset; the nearest is {weights.nearest}:"
        yield from (("", f"  {line}") for line in weights.differences)
    else:
        yield "fits", "no shipped preset, not even half of its keys"
    if weights.architecture is not None:
        yield "architecture", weights.architecture
    place = [f"entry {weights.entry!r}"] if weights.entry else []
    place += [f"prefix {weights.prefix!r} of all keys"] if weights.prefix else []
    yield "weights", ", ".join([f"{weights.tensors:,} tensors, {weights.parameters:,} values", *place])
    counts = ", ".join(f"{kind} {count:,}" for kind, count in weights.precision.items())
    floats = [kind for kind in weights.precision if "float" in kind]
    yield "precision", f"{counts}{' (mixed)' if len(floats) > 1 else ''}"


def _class_rows(report: "Inspection") -> Iterator[tuple[str, str]]:
    count = None if report.weights is None else report.weights.class_count
    if report.classes is not None:
        other = "" if count in (None, len(report.classes)) else f"; the weights have {count}"
        yield "classes", f"{len(report.classes)}: {', '.join(report.classes)}{other}"
    elif count is not None:
        yield "classes", f"{count}, no names in the file"


def _untold_lines(weights: "WeightsReport") -> list[str]:
    """Return what the keys do not tell, and the files that say it."""
    untold = weights.router.untold
    places = [f"config/models/{name}.yaml" for name in weights.presets]
    return [*untold, f"the preset says it: {', '.join(places)}"] if untold and places else list(untold)


def _odd_rows(odd: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    from aqr_perception.models.weights.fitting import grouped

    lines = []
    for kind, keys in odd.items():
        lines.append(f"{kind}: {len(keys)} tensors, the first is {keys[0]}")
        if kind in _HARMFUL and len(keys) > 1:
            lines += [f"  {line}" for line in grouped(keys)]
    yield from _labelled("odd values", lines or ["none"])


def _entry_lines(report: "Inspection") -> list[str]:
    entries = sorted(report.entries, key=lambda entry: -entry.bytes)
    lines = []
    for entry in entries[:_ENTRIES]:
        tensors = f", {entry.tensors:,} tensors, {_size(entry.bytes)}" if entry.tensors else ""
        lines.append(f"{entry.name}: {entry.kind}{tensors}")
    left = len(entries) - _ENTRIES
    return [*lines, f"and {left} more entries"] if left > 0 else lines


def _labelled(label: str, lines: "tuple[str, ...] | list[str]") -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines):
        yield "" if number else label, line


def _size(count: int) -> str:
    """Return a number of bytes as text, in units of 1000."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
