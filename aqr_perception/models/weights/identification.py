# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Shipped presets whose models weights fit, by keys, shapes and classes."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from aqr_perception.models.architectures import ARCHITECTURES
from aqr_perception.models.config.presets import load_preset, preset_names
from aqr_perception.models.weights.checkpoint_error import CheckpointError
from aqr_perception.models.weights.fitting import (
    CHOOSE_PRESET,
    Differences,
    PreparedWeights,
    box_problem,
    class_problem,
    differences,
    prepare,
)
from aqr_perception.models.weights.router_kinds import ROUTER_PREFIX
from aqr_perception.models.weights.stored_weights import StoredWeights

if TYPE_CHECKING:
    from aqr_perception.models.detection_model import DetectionModel


_DEEPEST_PREFIX = 3
"""Largest number of components of a prefix before a model's keys."""


@dataclass(frozen=True)
class Candidate:
    """A shipped preset compared with weights.

    Attributes:
        preset: its name.
        architecture: name of its architecture.
        differences: of the weights from the model's tensors.
        lacks: key prefixes of the model's query router if the weights have nothing of it; the model then runs with AQR
            off. Empty for complete weights.
        class_count: number of classes of the weights; None if the architecture finds no class output in them.
        problem: why the model does not load them although keys and shapes fit: other classes or constants; else None.
    """

    preset: str
    architecture: str
    differences: Differences
    lacks: tuple[str, ...]
    class_count: int | None
    problem: str | None

    @property
    def fits(self) -> bool:
        """Whether the preset's model loads the weights."""
        return not self.differences.count and self.problem is None

    @property
    def rank(self) -> int:
        """0 for complete weights, 1 without this project's router, which no published model has, 2 without another."""
        return 0 if not self.lacks else 1 if self.lacks == (ROUTER_PREFIX,) else 2


def compare_with_presets(stored: StoredWeights) -> list[Candidate]:
    """Return all shipped presets: those that load the weights, the most complete first, then the others by difference.

    The models are built without memory for their tensors, once in a process, and prepare the weights as for loading.
    """
    candidates = [_compare(stored, name) for name in preset_names()]
    return sorted(candidates, key=lambda found: (not found.fits, found.differences.count, found.rank))


def best_fits(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """Return the names of the presets that load the weights, of the smallest `Candidate.rank` only."""
    fitting = [candidate for candidate in candidates if candidate.fits]
    best = min((candidate.rank for candidate in fitting), default=0)
    return tuple(candidate.preset for candidate in fitting if candidate.rank == best)


def fitting_presets(stored: StoredWeights) -> tuple[str, ...]:
    """Return the names of the shipped presets that weights fit best; see `best_fits`."""
    return best_fits(compare_with_presets(stored))


def choose_preset(stored: StoredWeights) -> str:
    """Return the remedy for weights that do not fit a model: the presets that they fit, or the nearest one."""
    candidates = compare_with_presets(stored)
    fitting = best_fits(candidates)
    if fitting:
        return f"{these_weights_fit(fitting)}: choose {'it' if len(fitting) == 1 else 'one'}, or other weights."
    prefix = describe_prefix(stored)
    if prefix is not None:
        return prefix
    nearest = candidates[0]
    if not related(nearest, stored):
        return f"These weights fit none of the shipped presets. {CHOOSE_PRESET}"
    different = nearest.differences
    if nearest.problem is not None:
        return f"These weights fit none of the shipped presets; the nearest is {nearest.preset}: {nearest.problem}."
    return (
        f"These weights fit none of the shipped presets; the nearest is {nearest.preset} (missing "
        f"{len(different.missing)}, surplus {len(different.surplus)}, misfits {len(different.misfits)} of "
        f"{len(stored.tensors)} keys). {CHOOSE_PRESET}"
    )


def related(candidate: Candidate, stored: StoredWeights) -> bool:
    """Return whether a preset has at least half of the weights' keys, in their shapes."""
    strange = len(candidate.differences.surplus) + len(candidate.differences.misfits)
    return bool(stored.tensors) and 2 * strange <= len(stored.tensors)


def these_weights_fit(presets: Sequence[str]) -> str:
    """Return the presets that weights fit, as the start of a sentence."""
    return f"These weights fit the preset{'s' if len(presets) > 1 else ''} {' and '.join(presets)}"


def describe_prefix(stored: StoredWeights) -> str | None:
    """Return a part of the keys with one prefix that fits presets without it, as a sentence; None if there is none."""
    prefix, tensors = "", stored.tensors
    for _ in range(_DEEPEST_PREFIX):
        firsts = Counter(key.split(".", 1)[0] for key in tensors if "." in key)
        if not firsts:
            return None
        first = firsts.most_common(1)[0][0] + "."
        prefix += first
        tensors = {key.removeprefix(first): value for key, value in tensors.items() if key.startswith(first)}
        presets = fitting_presets(stored._replace(tensors=tensors))
        if presets:
            others = [key for key in stored.tensors if not key.startswith(prefix)]
            count = f"{len(tensors)} of {len(stored.tensors)}" if others else "All"
            rest = f", and leave out the others ({', '.join(others[:3])}{', ...' if len(others) > 3 else ''})"
            return (
                f"{count} keys start with {prefix!r} and fit the preset{'s' if len(presets) > 1 else ''} "
                f"{' and '.join(presets)} without it: save these keys without the prefix{rest if others else ''}."
            )
    return None


def _compare(stored: StoredWeights, preset: str) -> Candidate:
    model = _model(preset)
    problem = class_problem(stored, model) or box_problem(stored, model)
    try:
        prepared = prepare(stored, model, _tensors(preset))
    except CheckpointError as error:
        problem = str(error).removeprefix(f"{stored.name}: ")
        prepared = PreparedWeights(stored.tensors, dict(_tensors(preset)), True, ())
    different = differences(prepared.weights, prepared.expected)
    count = model.class_count(stored.tensors)
    lacks = () if prepared.has_router else prepared.router_prefixes
    return Candidate(preset, model.preset.architecture, different, lacks, count, problem)


@functools.cache
def _model(preset: str) -> "DetectionModel":
    """Return a shipped preset's model on the meta device, where tensors have shapes only."""
    config = load_preset(preset)
    with torch.device("meta"):
        return ARCHITECTURES[config.architecture].model_class()(config)


@functools.cache
def _tensors(preset: str) -> Mapping[str, torch.Tensor]:
    """Return the tensors of `_model(preset)` by key: collecting them takes most of a comparison."""
    return _model(preset).state_dict()
