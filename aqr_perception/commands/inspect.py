"""Command ``aqr_perception inspect``: reports on files."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from aqr_perception.commands.output import write_json

if TYPE_CHECKING:
    from aqr_perception.models.weights.inspection import Inspection, WeightsReport

_LABEL = 14
_HARMFUL = ("NaN", "infinite", "running_var 0 or less")
_ENTRIES = 12


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    subjects = commands.add_parser("inspect", help="say what a file is").add_subparsers(required=True, metavar="WHAT")
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


def _inspect_checkpoint(options: argparse.Namespace) -> int:
    from aqr_perception.models.weights.inspection import inspect_checkpoint

    report = inspect_checkpoint(options.file)
    for label, text in _rows(report):
        print(f"{label:<{_LABEL}}{text}".rstrip())
    write_json(options.json, report.as_dict())
    return 0


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
