# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Inspection of a checkpoint: what a file is, which preset it fits, and what else it holds."""

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aqr_perception.devices import format_name
from aqr_perception.models.weights.checkpoint_error import CheckpointError
from aqr_perception.models.weights.identification import (
    Candidate,
    best_fits,
    compare_with_presets,
    describe_prefix,
    related,
)
from aqr_perception.models.weights.odd_values import odd_values
from aqr_perception.models.weights.router_variant import RouterVariant, router_variant
from aqr_perception.models.weights.side_entries import (
    Description,
    SideEntry,
    all_entries,
    describe_training,
    side_entries,
)
from aqr_perception.models.weights.stored_weights import Selection, select_weights, stored_weights
from aqr_perception.models.weights.weight_files import FileContent, read_file


@dataclass(frozen=True)
class WeightsReport:
    """Report on the weights in a file.

    Attributes:
        entry: name of the entry that holds them; empty for the top level.
        prefix: of all keys, which loading removes.
        tensors, parameters: number of tensors and of values in them.
        precision: number of tensors by kind of numbers.
        presets: shipped presets that they fit best; see `identification.best_fits`.
        presets_without_router: shipped presets that load them with AQR off, because they lack its query router.
        architecture: of these presets, or of the nearest.
        nearest: the nearest preset if none fits; None otherwise.
        differences: from the nearest preset, in lines.
        class_count: number of classes; None if it cannot be told.
        router: variant of AQR.
        odd_values: keys by kind of odd values.
        notes: weights in the file that loading does not use.
    """

    entry: str
    prefix: str
    tensors: int
    parameters: int
    precision: dict[str, int]
    presets: tuple[str, ...]
    presets_without_router: tuple[str, ...]
    architecture: str | None
    nearest: str | None
    differences: tuple[str, ...]
    class_count: int | None
    router: RouterVariant
    odd_values: dict[str, list[str]]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """Report on a file.

    Attributes:
        file: its path.
        format: name of its format.
        bytes: its size.
        weights: report on its weights; None if it has none.
        problem: why there are no weights; None if there are.
        classes: names of its classes, from this project's or another training's entries; None without them.
        entries: what it holds next to the weights.
        training: the training's description of itself.
        not_loaded: modules and names of objects that are neither tensors nor plain values, and were not loaded.
    """

    file: str
    format: str
    bytes: int
    weights: WeightsReport | None
    problem: str | None
    classes: tuple[str, ...] | None
    entries: tuple[SideEntry, ...]
    training: Description
    not_loaded: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as dictionaries and lists, for JSON."""
        return dataclasses.asdict(self)


def inspect_checkpoint(path: Path) -> Inspection:
    """Read a file of weights and report on it, without running code in it.

    Values that are not finite are reported, not refused.

    Raises:
        CheckpointError: the file cannot be read.
    """
    file = read_file(path)
    training = describe_training(file.content)
    weights: WeightsReport | None = None
    problem: str | None = None
    entries = all_entries(file.content)
    try:
        selection = select_weights(str(path), file.content)
    except CheckpointError as error:
        problem = str(error).removeprefix(f"{path}: ")
    else:
        entries = side_entries(file.content, selection.entry)
        weights = _report(path, file, selection)
    classes = file.classes or training.classes
    size = path.stat().st_size
    return Inspection(
        str(path), file.format, size, weights, problem, classes, tuple(entries), training, file.not_loaded
    )


def _report(path: Path, file: FileContent, selection: Selection) -> WeightsReport:
    tensors = selection.tensors
    stored = stored_weights(str(path), tensors, file)
    candidates = compare_with_presets(stored)
    unknown_prefix = None if candidates[0].fits else describe_prefix(stored)
    best = candidates[0]
    known = related(best, stored)
    precision = Counter(format_name(tensor.dtype) for tensor in tensors.values())
    return WeightsReport(
        entry=".".join(selection.entry),
        prefix=selection.prefix,
        tensors=len(tensors),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        precision=dict(precision.most_common()),
        presets=best_fits(candidates),
        presets_without_router=tuple(found.preset for found in candidates if found.fits and found.lacks),
        architecture=best.architecture if known else None,
        nearest=best.preset if known and not best.fits else None,
        differences=_lines(best) if known and not best.fits else (),
        class_count=best.class_count if known else None,
        router=router_variant(tensors),
        odd_values=odd_values(tensors),
        notes=selection.notes if unknown_prefix is None else (*selection.notes, unknown_prefix),
    )


def _lines(candidate: Candidate) -> tuple[str, ...]:
    lines = candidate.differences.lines()
    return tuple(lines if candidate.problem is None else [*lines, candidate.problem])
