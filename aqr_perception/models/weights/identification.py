"""Shipped presets whose models weights fit, by keys, shapes and classes."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from aqr_perception.models.architectures import ARCHITECTURES
from aqr_perception.models.config.presets import load_preset, preset_names
from aqr_perception.models.weights.fitting import (
    CHOOSE_PRESET,
    Differences,
    class_problem,
    differences,
    expected_tensors,
    to_model_layout,
)
from aqr_perception.models.weights.stored_weights import StoredWeights

if TYPE_CHECKING:
    from aqr_perception.models.detection_model import DetectionModel


@dataclass(frozen=True)
class Candidate:
    """A shipped preset compared with weights.

    Attributes:
        preset: its name.
        architecture: name of its architecture.
        differences: of the weights from the model's tensors.
        class_count: number of classes of the weights; None if the architecture finds no class output in them.
        class_problem: how the classes differ; None if no difference is known.
    """

    preset: str
    architecture: str
    differences: Differences
    class_count: int | None
    class_problem: str | None

    @property
    def fits(self) -> bool:
        """Whether the preset's model loads the weights."""
        return not self.differences.count and self.class_problem is None


def compare_with_presets(stored: StoredWeights) -> list[Candidate]:
    """Return all shipped presets, those that differ least from the weights first.

    A preset fits if its model loads the weights: this project's query router may be absent as a whole, and sparse
    kernels may be in spconv 1's layout. The models are built without memory for their tensors, once in a process.
    """
    candidates = [_compare(stored, name) for name in preset_names()]
    return sorted(candidates, key=lambda candidate: (not candidate.fits, candidate.differences.count))


def fitting_presets(stored: StoredWeights) -> tuple[str, ...]:
    """Return the names of the shipped presets whose models load the weights."""
    return tuple(candidate.preset for candidate in compare_with_presets(stored) if candidate.fits)


def choose_preset(stored: StoredWeights) -> str:
    """Return the remedy for weights that do not fit a model: the presets that they fit, or the nearest one."""
    candidates = compare_with_presets(stored)
    fitting = [candidate.preset for candidate in candidates if candidate.fits]
    if fitting:
        return f"{these_weights_fit(fitting)}: choose {'it' if len(fitting) == 1 else 'one'}, or other weights."
    prefix = describe_prefix(stored)
    if prefix is not None:
        return f"{prefix[0].upper()}{prefix[1:]}."
    nearest = candidates[0]
    shared = len(stored.tensors) - len(nearest.differences.surplus) - len(nearest.differences.misfits)
    if 2 * shared < len(stored.tensors):
        return f"These weights fit none of the shipped presets. {CHOOSE_PRESET}"
    return (
        f"These weights fit none of the shipped presets; the nearest is {nearest.preset} (missing "
        f"{len(nearest.differences.missing)}, surplus {len(nearest.differences.surplus)}, misfits "
        f"{len(nearest.differences.misfits)} of {len(stored.tensors)} keys). {CHOOSE_PRESET}"
    )


def these_weights_fit(presets: Sequence[str]) -> str:
    """Return the presets that weights fit, as the start of a sentence."""
    return f"These weights fit the preset{'s' if len(presets) > 1 else ''} {' and '.join(presets)}"


def describe_prefix(stored: StoredWeights) -> str | None:
    """Return the prefix of all keys, and the presets that weights fit without it; None if there are none."""
    prefix = ""
    while stored.tensors:
        first = next(iter(stored.tensors)).split(".", 1)[0] + "."
        if not all(key.startswith(first) for key in stored.tensors):
            return None
        prefix += first
        stored = stored._replace(tensors={key.removeprefix(first): value for key, value in stored.tensors.items()})
        fitting = fitting_presets(stored)
        if fitting:
            return (
                f"all keys start with {prefix!r}; without it, they fit the preset{'s' if len(fitting) > 1 else ''} "
                f"{' and '.join(fitting)}: save the weights of the part {prefix.rstrip('.')!r} only"
            )
    return None


def _compare(stored: StoredWeights, preset: str) -> Candidate:
    model = _model(preset)
    needed = model.state_dict()
    found = to_model_layout(stored.tensors, needed)
    different = differences(found, expected_tensors(found, needed))
    count = model.class_count(stored.tensors)
    return Candidate(preset, model.preset.architecture, different, count, class_problem(stored, model))


@functools.cache
def _model(preset: str) -> "DetectionModel":
    """Return a shipped preset's model on the meta device, where tensors have shapes only."""
    config = load_preset(preset)
    with torch.device("meta"):
        return ARCHITECTURES[config.architecture].model_class()(config)
