# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Comparison of weights with the keys, shapes and classes that a model needs."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from aqr_perception.models.weights.checkpoint_error import CheckpointError
from aqr_perception.models.weights.router_kinds import ROUTER_PREFIX, other_router
from aqr_perception.models.weights.stored_weights import StoredWeights

CHOOSE_PRESET = "Choose the model preset that these weights were trained with, or the weights of this preset."

_CONVENTIONS = {"mmdet3d_0": "(w, l, h; -yaw - pi/2)", "mmdet3d_1": "(l, w, h; yaw)"}
"""Box codes by their convention; see `options.BoxConvention`."""

_COUNTER = "num_batches_tracked"

_LISTED = 10
"""Largest number of keys that a message lists one by one."""

_GROUPS = 4
"""Number of groups into which more keys are divided, if their names allow it."""

_LARGEST = 8
"""Largest number of groups in a message."""


@runtime_checkable
class ClassModel(Protocol):
    """A model with class outputs; see `DetectionModel`."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    def class_count(self, weights: Mapping[str, Tensor]) -> int | None: ...


@runtime_checkable
class VariantModel(Protocol):
    """A model that accepts variants of its weights; see `DetectionModel`."""

    def convert_weights(self, name: str, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]: ...

    def adopt_variant(self, name: str, weights: Mapping[str, Tensor]) -> None: ...


@dataclass(frozen=True)
class Differences:
    """Differences of weights from what a model needs.

    Attributes:
        missing: keys that the model needs and the weights lack.
        surplus: keys that the model does not have.
        misfits: descriptions of tensors of another shape or kind of numbers, by key.
    """

    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    misfits: Mapping[str, str]

    @property
    def count(self) -> int:
        return len(self.missing) + len(self.surplus) + len(self.misfits)

    def lines(self) -> list[str]:
        """Return the differences as text: each key, or where there are many, groups of keys with one prefix."""
        lines = [f"missing: {text}" for text in grouped(self.missing)]
        lines += [f"surplus: {text}" for text in grouped(self.surplus)]
        if len(self.misfits) <= _LISTED:
            return lines + [f"misfit: {text}" for text in self.misfits.values()]
        for prefix, keys in _groups(tuple(self.misfits)):
            example = self.misfits[keys[0]]
            lines.append(
                f"misfit: {_under(prefix, keys)}, for example {example}" if len(keys) > 1 else f"misfit: {example}"
            )
        return lines


def differences(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Differences:
    """Return the differences of weights from a model's tensors, which may be on the meta device.

    Args:
        found: weights by key, in the model's layout; see `to_model_layout`.
        expected: the model's tensors by key.
    """
    described = {key: describe_misfit(key, found[key], expected[key]) for key in expected if key in found}
    return Differences(
        tuple(key for key in expected if key not in found),
        tuple(key for key in found if key not in expected),
        {key: misfit for key, misfit in described.items() if misfit is not None},
    )


class PreparedWeights(NamedTuple):
    """Weights as a model takes them, before the comparison.

    Attributes:
        weights: by key, in the model's layout.
        expected: the model's tensors by key that the weights must hold: all, or all but its query router's.
        has_router: whether the weights have some of the model's query router; true for a model without one.
        router_prefixes: key prefixes of the model's query router.
        left_out: why the weights' query router is left out; empty if it is not.
    """

    weights: dict[str, Tensor]
    expected: dict[str, Tensor]
    has_router: bool
    router_prefixes: tuple[str, ...]
    left_out: str = ""


def prepare(stored: StoredWeights, model: nn.Module, state: Mapping[str, Tensor] | None = None) -> PreparedWeights:
    """Convert weights to a model's layout and variant; the model may be on the meta device.

    Args:
        stored: the weights.
        model: the model that will load them.
        state: its `state_dict()`, where a caller has it already.

    Raises:
        CheckpointError: constants in the weights contradict the model's; see `DetectionModel.convert_weights`.
    """
    needed, found = model.state_dict() if state is None else state, stored.tensors
    prefixes: tuple[str, ...] = getattr(model, "optional_router", (ROUTER_PREFIX,))
    router = {key for key in needed if key.startswith(prefixes)}
    left_out = other_router(found, needed)
    has_router = not router or (not left_out and any(key in found for key in router))
    converted = model.convert_weights(stored.name, found) if isinstance(model, VariantModel) else found
    if left_out:
        converted = {key: tensor for key, tensor in converted.items() if not key.startswith(ROUTER_PREFIX)}
    expected = {key: tensor for key, tensor in needed.items() if has_router or key not in router}
    weights = with_batch_counters(to_model_layout(converted, needed), expected)
    return PreparedWeights(weights, expected, has_router, prefixes, left_out)


def with_batch_counters(found: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with a counter of 0 for each batch norm whose counter they lack, if they lack nothing else.

    PyTorch before 0.4.1 and some converters store none; only a training with cumulative averages uses it.
    """
    absent = [
        key
        for key in needed
        if key not in found and key.endswith(_COUNTER) and key.removesuffix(_COUNTER) + "running_var" in found
    ]
    complete = len(found) + len(absent) == len(needed) and all(key in found for key in needed.keys() - set(absent))
    return {**found, **{key: torch.zeros((), dtype=torch.long) for key in absent}} if complete else dict(found)


def require_fit(name: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Check that weights have the expected keys, shapes and kinds of numbers, and nothing else.

    Args:
        name: name of their source, for the message.
        found: weights by key.
        expected: the model's tensors by key.

    Raises:
        CheckpointError: keys are missing, surplus or misshapen. They are listed, or counted by prefix if they are many.
    """
    prepared = PreparedWeights(dict(found), dict(expected), True, ())
    different = differences(found, expected)
    if different.count:
        raise CheckpointError(misfit_message(name, prepared, different, CHOOSE_PRESET))


def misfit_message(name: str, prepared: PreparedWeights, different: Differences, remedy: str) -> str:
    """Return the message for weights that do not fit a model; its last line is the remedy."""
    lines = [
        f"{name}: does not fit the model ({len(prepared.expected)} keys needed, {len(prepared.weights)} found)",
        *(f"  {line}" for line in different.lines()),
    ]
    if any(key.startswith(prepared.router_prefixes) for key in different.missing):
        prefixes = ", ".join(f"{prefix}*" for prefix in prepared.router_prefixes)
        lines.append(f"A file must hold all of the query router's keys ({prefixes}) or none.")
    return "\n".join([*lines, remedy])


def class_problem(stored: StoredWeights, model: ClassModel) -> str | None:
    """Return how the classes of weights differ from a model's, with a remedy; None if no difference is known."""
    needed, names = model.classes, stored.classes
    count = model.class_count(stored.tensors)
    if count is not None and count != len(needed):
        return (
            f"has {count} classes{_listed(names)}, but the model's preset has {len(needed)}{_listed(needed)}; choose a "
            f"preset whose entry 'classes' lists the {count} of these weights, or other weights"
        )
    if names is not None and names != needed:
        return (
            f"was trained with the classes {', '.join(names)}, but the model's preset has {', '.join(needed)}; choose "
            "a preset whose entry 'classes' lists those of these weights in their order, or other weights"
        )
    described = stored.described_classes
    if names is None and described is not None and in_other_order(described, needed):
        return (
            f"its training describes the classes in the order {', '.join(described)}, but the model's preset has "
            f"{', '.join(needed)}: detections would get wrong names; choose a preset whose entry 'classes' lists them "
            "in that order, or save the state_dict alone if the description is wrong"
        )
    return None


def in_other_order(described: Sequence[str], needed: Sequence[str]) -> bool:
    """Return whether two lists have the same names, up to spelling, in another order."""
    first, second = plain_names(described), plain_names(needed)
    return first != second and sorted(first) == sorted(second)


def plain_names(names: Sequence[str]) -> list[str]:
    """Return names without differences in spelling: lower-case letters and digits."""
    return [re.sub(r"[\W_]+", "", name.lower()) for name in names]


def box_problem(stored: StoredWeights, model: nn.Module) -> str | None:
    """Return how the box codes of weights differ from those that a model reads; None if no difference is known."""
    read = getattr(model, "box_convention", None)
    if read is None or stored.box_convention in (None, read):
        return None
    option = getattr(model, "box_convention_entry", "")
    return (
        f"was trained with {stored.trained_with}, whose boxes are {_CONVENTIONS[stored.box_convention or read]}, but "
        f"the model's preset reads {_CONVENTIONS[read]}: boxes would be turned and their sides exchanged; "
        + (f"set {option}: {stored.box_convention} in a copy of the preset" if option else "choose other weights")
    )


def _listed(names: tuple[str, ...] | None) -> str:
    return "" if names is None else f" ({', '.join(names)})"


def to_model_layout(found: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with their sparse kernels in the layout of a model's tensors.

    Args:
        found: weights by key.
        needed: the model's tensors by key.
    """
    kernels = _spconv1_kernels(found, needed)
    return {key: tensor.permute(4, 0, 1, 2, 3) if key in kernels else tensor for key, tensor in found.items()}


def _spconv1_kernels(found: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> set[str]:
    """Return the keys of sparse kernels whose shapes are in spconv 1's layout, (kD, kH, kW, in, out)."""
    certain: set[str] = set()
    ambiguous: set[str] = set()
    for key in found.keys() & needed.keys():
        stored, shape = tuple(found[key].shape), tuple(needed[key].shape)
        if len(shape) == 5 and stored == (*shape[1:], shape[0]):
            (ambiguous if stored == shape else certain).add(key)
    # A kernel with five equal sizes fits both layouts. The other kernels decide, because a file uses one layout.
    return certain | ambiguous if certain else set()


def describe_misfit(key: str, found: Tensor, needed: Tensor) -> str | None:
    """Return why a tensor cannot replace another one, or None if it can."""
    if found.shape != needed.shape:
        alternative = ""
        if needed.dim() == 5:
            alternative = f" (or {list((*needed.shape[1:], needed.shape[0]))} in spconv 1's layout)"
        return f"{key} has shape {list(found.shape)}, needed {list(needed.shape)}{alternative}"
    if found.is_floating_point() != needed.is_floating_point() or found.is_complex():
        return f"{key} has {found.dtype}, which cannot be cast to {needed.dtype} without loss"
    return None


def grouped(keys: Sequence[str]) -> list[str]:
    """Return few keys as they are, and many as groups with one prefix: the number, the prefix, the first names."""
    if len(keys) <= _LISTED:
        return list(keys)
    groups = _groups(keys)
    lines = []
    for prefix, members in groups[:_LARGEST]:
        names = [key.removeprefix(prefix) for key in members[:2]]
        lines.append(members[0] if len(members) == 1 else f"{_under(prefix, members)} ({', '.join(names)}, ...)")
    left = sum(len(members) for _, members in groups[_LARGEST:])
    return lines + ([f"{left} other keys"] if left else [])


def _under(prefix: str, keys: Sequence[str]) -> str:
    return f"{len(keys)} keys under {prefix}*"


def _groups(keys: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Divide keys by their first components, then the largest group by its next ones, until there are enough groups.

    Layers with numbers stay together.
    """
    groups = _divided(list(keys), "")
    while len(groups) < _GROUPS:
        for prefix, members in sorted(groups, key=lambda group: -len(group[1])):
            parts = _divided(members, prefix)
            numbered = all(part.removeprefix(prefix).split(".", 1)[0].isdigit() for part, _ in parts)
            if 1 < len(parts) <= _GROUPS - len(groups) + 1 and not numbered:
                place = groups.index((prefix, members))
                groups[place : place + 1] = parts
                break
        else:
            break
    return sorted(groups, key=lambda group: -len(group[1]))


def _divided(keys: list[str], prefix: str) -> list[tuple[str, list[str]]]:
    """Divide keys that share a prefix by their next component; each part has its longest common prefix."""
    parts: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        parts[key.removeprefix(prefix).split(".", 1)[0]].append(key)
    return [(_common_prefix(members), members) for members in parts.values()]


def _common_prefix(keys: list[str]) -> str:
    """Return the whole components that all keys start with, with the last dot; the key itself if there is one."""
    if len(keys) == 1:
        return keys[0]
    common = []
    for components in zip(*(key.split(".") for key in keys), strict=False):
        if len(set(components)) > 1:
            break
        common.append(components[0])
    return "".join(f"{component}." for component in common)
