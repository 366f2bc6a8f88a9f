# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Variants of AQR in one ablation table: each measured as `measurement.measure` does, or read from its figures."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from aqr_perception.evaluation.headroom.headroom_report import FILE_NAME, write
from aqr_perception.evaluation.headroom.headroom_table import HeadroomTable
from aqr_perception.evaluation.headroom.known_failures import CLEAN
from aqr_perception.evaluation.plain_table import PlainTable
from aqr_perception.options import AqrMode

_KEY = "measured"

_log = logging.getLogger(__name__)

Figures = Mapping[str, Any]
"""`HeadroomTable.as_dict` as JSON has it."""


@dataclass(frozen=True)
class Variant:
    """One row of the ablation table.

    Attributes:
        name: name of the row.
        model: preset.
        checkpoint: weights; None for those that are shipped for the preset. A ``.json`` holds figures of an earlier
            measurement.
        mode: mode of AQR.
        cost_ms: time of a frame in milliseconds; None if unknown.
    """

    name: str
    model: str
    checkpoint: str | None
    mode: AqrMode = "auto"
    cost_ms: float | None = None

    @property
    def figures(self) -> Path | None:
        """The file of an earlier measurement; None if the variant has weights."""
        return Path(self.checkpoint) if self.checkpoint is not None and self.checkpoint.endswith(".json") else None


def parse_variants(texts: Sequence[str], model: str, costs: Sequence[str] = ()) -> tuple[Variant, ...]:
    """Return the variants of ``NAME=[MODEL@]CHECKPOINT[:MODE]``.

    CHECKPOINT may be empty (shipped weights), ``random`` or the ``.json`` of an earlier measurement.

    Args:
        model: preset of the variants that name none.
        costs: ``NAME=MS`` or ``NAME=FILE``, the JSON of ``aqr_perception benchmark``.

    Raises:
        ValueError: a text has another form, two variants have one name, or a cost belongs to no variant.
    """
    known = _costs(costs)
    variants = []
    for text in texts:
        name, equals, source = text.partition("=")
        if not (name and equals):
            raise ValueError(f"--variants {text}: needed NAME=[MODEL@]CHECKPOINT[:MODE], for example on=final.pt:auto")
        preset, at, checkpoint = source.rpartition("@")
        rest, colon, mode = checkpoint.rpartition(":")
        if not (colon and mode in get_args(AqrMode)):
            rest, mode = checkpoint, "auto"
        variants.append(Variant(name, preset if at else model, rest or None, mode, known.get(name)))  # type: ignore[arg-type]
    names = [variant.name for variant in variants]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--variants: found {name!r} twice, needed a name of its own for each variant")
        if Path(name).name != name:
            raise ValueError(f"--variants {name}: needed a name that can be a folder's")
    for name in known:
        if name not in names:
            raise ValueError(f"--cost {name}: found no such variant, needed one of {', '.join(names)}")
    return tuple(variants)


def measured_variants(
    variants: Sequence[Variant], folder: Path, settings: object, measure: Callable[[Variant], HeadroomTable]
) -> Mapping[Variant, Figures]:
    """Return the figures of all variants; those that the folder already has are not measured again.

    The reports of a variant are in a folder of its name.

    Args:
        settings: all that the figures depend on beside the variant, as JSON values.
        measure: measures a variant.

    Raises:
        ValueError: a file of figures has none, or has none of the variant's mode.
    """
    found = {}
    for variant in variants:
        if variant.figures is not None:
            found[variant] = _read(variant.figures, variant.mode)
            continue
        own = folder / variant.name
        key = hashlib.sha256(json.dumps([_identity(variant), settings], sort_keys=True).encode()).hexdigest()
        stored = _stored(own / FILE_NAME, key)
        if stored is None:
            _log.info("variant %s: %s with %s, AQR %s", variant.name, variant.model, variant.checkpoint, variant.mode)
            write(measure(variant), own, {_KEY: key})
            stored = _read(own / FILE_NAME, variant.mode)
        else:
            _log.info("variant %s: figures of an earlier run, from %s; remove it to measure again", variant.name, own)
        found[variant] = stored
    return found


def ablation_table(found: Mapping[Variant, Figures]) -> PlainTable:
    """Return one row for each variant, with the oracle of the first one last."""
    header = ["variant", "AQR", "clean NDS", "mean NDS, failures", "share of clean", "cost ms", "headroom won"]
    header += ["least won", "largest loss"]
    rows = []
    for variant, figures in found.items():
        summary = figures["summary"][variant.mode]
        cost = "-" if variant.cost_ms is None else f"{variant.cost_ms:.1f}"
        cells = [_number(summary["clean"]), _number(summary["failures"]), _share(summary["share_of_clean"]), cost]
        if variant.mode == "off":
            won = ["-"] * 3
        else:
            won = [_share(summary["share_won"]), _share(summary["least_share"]), f"{summary['worst']:+.3f}"]
        mode = figures["auto_mode"] or "auto" if variant.mode == "auto" else variant.mode
        rows.append([variant.name, mode, *cells, *won])
    first, figures = next(iter(found.items()))
    clean, failures = figures["summary"]["off"]["clean"], figures["mean_taken_out"]
    share = failures / clean if clean and failures is not None else None
    rows.append([f"oracle on {first.name}", "off", _number(clean), _number(failures), _share(share), *["-"] * 4])
    notes = [
        "Share of clean: mean NDS over the failures divided by clean NDS. Headroom won: NDS won over the variant's own "
        "base (AQR off), divided by what taking out the broken tokens wins, summed over the failures with a point or "
        "more; least won: the least of each. Largest loss: the smallest difference to the base, clean included",
        "Oracle: AQR off, without the broken tokens. Cost: a frame's time (aqr_perception benchmark)",
    ]
    return PlainTable(_title(found), header, rows, [*notes, *_differences(found)])


def failure_table(found: Mapping[Variant, Figures]) -> PlainTable:
    """Return one row for each failure: left in, taken out and headroom of the first variant, and all variants' NDS."""
    first = next(iter(found))
    with_aqr = [variant for variant in found if variant.mode != "off"]
    header = ["failure", "left in", "taken out", "headroom", *(variant.name for variant in with_aqr)]
    rows = []
    for row in found[first]["rows"]:
        headroom = f"{row['headroom']:.3f}" if row["has_headroom"] else "none"
        cells = [row["failure"], _number(row["left_in"]["nds"]), _number(row["taken_out"]["nds"]), headroom]
        for variant in with_aqr:
            own = next((other for other in found[variant]["rows"] if other["failure"] == row["failure"]), None)
            cells.append("-" if own is None else _won(own, variant.mode))
        rows.append(cells)
    notes = [
        f"Left in, taken out, headroom: {first.name} with AQR off. Variants: NDS (won over the variant's own base, "
        "share of its own headroom)"
    ]
    return PlainTable(f"{_title(found)}, by failure", header, rows, notes)


def _won(row: Figures, mode: str) -> str:
    share = row["share_won"][mode]
    return f"{row['by_mode'][mode]['nds']:.3f} ({row['won'][mode]:+.3f}" + (")" if share is None else f", {share:.0%})")


def _title(found: Mapping[Variant, Figures]) -> str:
    figures = next(iter(found.values()))
    failures = sum(row["failure"] != CLEAN for row in figures["rows"])
    return f"{len(found)} variants, {figures['frames']} frames, {figures['objects']} objects, {failures} failures"


def _differences(found: Mapping[Variant, Figures]) -> list[str]:
    """Return a warning for each variant that was measured otherwise than the first one."""
    first, reference = next(iter(found.items()))
    notes = []
    for variant, figures in found.items():
        for name in ("frames", "objects", "seed", "threshold"):
            if figures[name] != reference[name]:
                notes.append(
                    f"NOT comparable: {variant.name} has {name} {figures[name]}, {first.name} has {reference[name]}"
                )
        names = [row["failure"] for row in figures["rows"]]
        if names != [row["failure"] for row in reference["rows"]]:
            notes.append(f"NOT comparable: {variant.name} has other failures than {first.name}")
    return notes


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _identity(variant: Variant) -> list[object]:
    """Return all that a variant's figures depend on; files by size and time of change."""
    files = []
    for name in (variant.model, variant.checkpoint or ""):
        path = Path(name)
        state = path.stat() if name and path.is_file() else None
        files.append([name, None if state is None else [state.st_size, state.st_mtime_ns]])
    return [*files, variant.mode]


def _stored(path: Path, key: str) -> Figures | None:
    """Return the figures that a folder has of the same measurement; None without."""
    try:
        figures: Figures = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return figures if isinstance(figures, dict) and figures.get(_KEY) == key else None


def _read(path: Path, mode: str) -> Figures:
    try:
        figures: Figures = json.loads(path.read_text())
        known = list(figures["summary"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: found no figures of a headroom measurement ({error}), needed the {FILE_NAME} of evaluate "
            "--benchmark headroom"
        ) from None
    if mode not in known:
        raise ValueError(f"{path}: found AQR {', '.join(known)}, needed {mode}; name another with :MODE")
    return figures


def _costs(texts: Sequence[str]) -> dict[str, float]:
    """Return milliseconds by name."""
    costs = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            costs[name] = _total_ms(Path(value)) if value.endswith(".json") else float(value)
        except (OSError, ValueError, KeyError, TypeError, StopIteration):
            raise ValueError(
                f"--cost {text}: needed NAME=MILLISECONDS or NAME=FILE.json, written by aqr_perception benchmark --json"
            ) from None
    return costs


def _total_ms(path: Path) -> float:
    stages = json.loads(path.read_text())["stages"]
    return float(next(stage["median_ms"] for stage in stages if stage["stage"] == "total"))
