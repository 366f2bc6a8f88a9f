# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Weights in a checkpoint: the entry that holds them, averages next to them, and prefixes of their keys."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aqr_perception.models.weights.checkpoint_error import CheckpointError
from aqr_perception.models.weights.placeholders import Placeholder
from aqr_perception.models.weights.side_entries import described_box_convention, described_classes
from aqr_perception.models.weights.weight_files import FileContent, as_dict, read_file
from aqr_perception.options import BoxConvention

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Entries that hold a state dict, in the order of preference."""

_NESTING = (*WRAPPERS, "module", "average")
"""Entries that hold weights inside an entry with an average."""

_PREFIXES = ("module.", "_forward_module.", "model.", "ema_model.", "backbone.")
"""Prefixes that programs put before every key: of parallel, Lightning's and averaged models, and of backbones."""

_INNER_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Components of keys by which PyTorch marks compiled, sharded and recomputed modules, before any part of a model."""

_AVERAGE_PREFIXES = ("ema_model.", "model_ema.", "ema.")
"""Prefixes of averaged weights next to the others in one state dict."""

_COUNTERS = ("n_averaged", "steps")
"""Counters of updates in the state dict of an averaged model, next to its weights."""

_AVERAGE_MARK = "ema_"
"""Start of the names of mmcv's averages; see `_without_mmcv_averages`."""

_DEPTH = 5
"""Largest number of nested entries; a damaged file may nest an entry in itself."""

_SHOWN = 10

_log = logging.getLogger(__name__)


class StoredWeights(NamedTuple):
    """Content of a checkpoint.

    Attributes:
        name: of the source, for messages.
        tensors: by key.
        classes: names of the classes in the order of the class outputs; None if unknown.
        described_classes: names of the classes of the data set, in the description by another program's training; None
            without one.
        box_convention: convention of box codes that the version of the training's program tells; see
            `side_entries.described_box_convention`.
        trained_with: that program and its version; empty without one.
    """

    name: str
    tensors: dict[str, Tensor]
    classes: tuple[str, ...] | None = None
    described_classes: tuple[str, ...] | None = None
    box_convention: BoxConvention | None = None
    trained_with: str = ""


class Selection(NamedTuple):
    """Weights chosen from the content of a checkpoint.

    Attributes:
        tensors: by key, without prefix.
        entry: names of the nested entries that hold them; empty for the top level.
        prefix: removed from every key.
        choices: which of several sets of weights was taken, and how to get the others; one sentence each.
        removed: what was removed from the keys.
    """

    tensors: dict[str, Tensor]
    entry: tuple[str, ...]
    prefix: str
    choices: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """All notes on the choice."""
        return (*self.choices, *self.removed)


def read_weights(source: str | Path | Mapping[str, Tensor], entry: str = "") -> StoredWeights:
    """Return the weights of a source as in `checkpoint.load_checkpoint`; the log says what was left aside.

    Args:
        source: a file, or its content.
        entry: name of the entry that holds the weights, with dots between nested names; by default, see
            `select_weights`.

    Raises:
        CheckpointError: the file cannot be read, holds no state dict, or has values that are not finite.
    """
    name = "state dict" if isinstance(source, Mapping) else str(source)
    file = FileContent("memory", source) if isinstance(source, Mapping) else read_file(Path(source))
    selection = select_weights(name, file.content if not entry else _entry_of(name, file.content, entry))
    # A warning, because programs show it unless asked not to: another set would be another model.
    for note in selection.choices:
        _log.warning("%s: %s", name, note)
    for note in selection.removed:
        _log.info("%s: %s", name, note)
    require_finite(name, selection.tensors)
    return stored_weights(name, selection.tensors, file)


def stored_weights(name: str, tensors: dict[str, Tensor], file: FileContent) -> StoredWeights:
    """Return weights with what their file tells about classes and boxes."""
    convention, program = described_box_convention(file.content)
    return StoredWeights(name, tensors, file.classes, described_classes(file.content), convention, program)


def select_weights(name: str, content: object) -> Selection:
    """Choose the weights in the content of a checkpoint.

    Args:
        name: name of the source, for messages.
        content: a state dict, or nested dictionaries with one under an entry in `WRAPPERS`. Of a training state of this
            project the average is chosen, as final.safetensors holds it.

    Raises:
        CheckpointError: there is no state dict, or it has entries that are not tensors with values.
    """
    found, entry, beside = _unwrapped(content)
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{name}: holds {_kind(found)}, needed a state dict (key -> tensor), at the top level or under "
            f"{_wrappers()}"
        )
    _require_tensors(name, found)
    weights: dict[str, Tensor] = found
    weights, wrappers = _without_inner_wrappers(weights)
    weights, prefix, among = _without_prefix(weights)
    weights, mmcv = _without_mmcv_averages(weights)
    removed = [f"the prefix {prefix!r} is removed from all keys"] if prefix else []
    return Selection(weights, entry, prefix, (*beside, *among, *mmcv), (*wrappers, *removed))


def _entry_of(name: str, content: object, entry: str) -> object:
    """Return a nested entry of a checkpoint."""
    for part in entry.split("."):
        level = as_dict(content)
        if not isinstance(level, dict) or part not in level:
            names = ", ".join(map(repr, level)) if isinstance(level, dict) and len(level) <= _SHOWN else _kind(content)
            raise CheckpointError(f"{name}: has no entry {part!r} (of {entry!r}), but {names}; give one of its entries")
        content = level[part]
    return content


def require_finite(name: str, weights: Mapping[str, Tensor]) -> None:
    """Check that weights have no NaN or infinite values.

    Raises:
        CheckpointError: some have; all their keys are listed.
    """
    broken = [key for key, tensor in weights.items() if not bool(values_of(tensor).isfinite().all())]
    if broken:
        listed = "".join(f"\n  not finite: {key}" for key in broken[:_SHOWN])
        more = f"\n  and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        raise CheckpointError(
            f"{name}: {len(broken)} of {len(weights)} tensors hold NaN or infinite values, with which a model detects "
            f"nothing:{listed}{more}\nThe training diverged; choose a checkpoint from before that, or train again with "
            "a lower learning rate."
        )


def values_of(tensor: Tensor) -> Tensor:
    """Return a tensor's values, in a precision that PyTorch can compare, and each stored value at most once.

    A file may repeat stored values without end by strides of 0; they need not be expanded to be checked.
    """
    stored = tensor.untyped_storage().nbytes() // tensor.element_size()
    values = tensor if tensor.numel() <= stored else torch.as_strided(tensor, (stored,), (1,), 0)
    return values.float() if values.is_floating_point() and values.element_size() == 1 else values


def _unwrapped(content: object) -> tuple[object, tuple[str, ...], list[str]]:
    """Return the innermost wrapped content, the names of the entries that lead to it, and notes on averages."""
    content = as_dict(content)
    entry: tuple[str, ...] = ()
    notes: list[str] = []
    while isinstance(content, dict) and len(entry) < _DEPTH:
        ema = as_dict(content.get("ema"))
        # A training state of this project.
        if isinstance(content.get("model"), Mapping) and isinstance(ema, dict) and _holds_weights(ema.get("average")):
            note = "has trained weights and their average: the average is taken, not 'model', as in final.safetensors"
            notes.append(f"{note}; {_other_set((*entry, 'model'))}")
            return as_dict(ema["average"]), (*entry, "ema", "average"), notes
        wrapper = next((name for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if wrapper is None:
            break
        notes += _average_notes(content, wrapper, entry)
        content, entry = as_dict(content[wrapper]), (*entry, wrapper)
    return content, entry, notes


def _average_notes(content: Mapping[Any, Any], taken: str, level: tuple[str, ...]) -> list[str]:
    """Return a note for each other set of weights next to the one that is taken, on one level of entries."""
    notes = []
    for key, value in content.items():
        if not isinstance(key, str) or key == taken or not _holds_weights(value):
            continue
        note = f"has two sets of weights: {taken!r} is taken, {key!r} is not"
        if key == "ema_state_dict":
            note += "; mmengine stores the average as 'state_dict', other programs as 'ema_state_dict'"
        elif key == "current_model_state":
            note += "; Lightning stores the average as 'state_dict'"
        notes.append(f"{note}; {_other_set((*level, key, *_inner_entry(value)))}")
    return notes


def _other_set(entry: tuple[str, ...]) -> str:
    return f"for the other set: {_convert(entry)}"


def _convert(entry: tuple[str, ...]) -> str:
    return f"aqr_perception convert checkpoint PRESET FILE TARGET --entry {'.'.join(entry)}"


def _inner_entry(value: object) -> tuple[str, ...]:
    """Return the names that lead to the weights in a mapping with weights; empty if they are not nested."""
    value = as_dict(value)
    if isinstance(value, dict):
        for name in _NESTING:
            if _holds_weights(value.get(name)):
                return (name, *_inner_entry(value[name]))
    return ()


def _holds_weights(value: object, depth: int = 0) -> bool:
    """Return whether an entry is a state dict, or wraps one; optimisers' states are nested by number."""
    value = as_dict(value)
    if not isinstance(value, dict) or not value or depth > _DEPTH:
        return False
    if any(_holds_weights(value.get(name), depth + 1) for name in _NESTING):
        return True
    tensors = [key for key, item in value.items() if isinstance(key, str) and isinstance(item, Tensor)]
    return 2 * len(tensors) > len(value) and any("." in key for key in tensors)


def _require_tensors(name: str, content: dict[Any, Any]) -> None:
    others = [
        f"{key!r} ({problem})" for key, value in content.items() if (problem := _no_weight(key, value)) is not None
    ]
    if not others:
        return
    shown = ", ".join(others[:_SHOWN]) + (f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else "")
    inside = [(str(key), *_inner_entry(value)) for key, value in content.items() if _holds_weights(value)]
    hint = f"; weights are under {'.'.join(inside[0])!r}: {_convert(inside[0])}" if inside else ""
    raise CheckpointError(
        f"{name}: holds entries that are not named tensors: {shown}; save the model's state_dict, at the top level or "
        f"under {_wrappers()}{hint}"
    )


def _no_weight(key: object, value: object) -> str | None:
    """Return why an entry of a state dict is no weight; None if it is one."""
    if not isinstance(key, str) or not isinstance(value, Tensor):
        return _kind(value).split(" ", 1)[1]
    if value.layout is not torch.strided or value.is_quantized or value.is_nested:
        return "tensor that is sparse, nested or quantised"
    return "tensor without values" if value.is_meta else None


def _kind(value: object) -> str:
    if isinstance(value, Placeholder):
        return f"a {value.name} object, which is not loaded"
    return f"a {type(value).__name__}"


def _wrappers() -> str:
    return " or ".join(map(repr, WRAPPERS))


def _without_inner_wrappers(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return weights without the components of `_INNER_WRAPPERS` in their keys, and a note if there are any."""
    marked = [name for name in _INNER_WRAPPERS if any(name in key.split(".") for key in weights)]
    plain = {".".join(part for part in key.split(".") if part not in marked): key for key in weights}
    if not marked or len(plain) < len(weights):
        return weights, []
    return {key: weights[old] for key, old in plain.items()}, [f"{' and '.join(marked)} is removed from the keys"]


def _without_prefix(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], str, list[str]]:
    """Return weights without the prefixes that all keys share, the prefixes, and notes on averages among them."""
    prefix, notes = "", []
    while weights:
        shared = _shared_prefix(weights)
        if shared is not None:
            prefix += shared
            weights = {key.removeprefix(shared): tensor for key, tensor in weights.items()}
            continue
        averages = _averages_beside(weights)
        if averages is not None:
            notes.append(
                f"has weights and their average: the keys without {averages!r} are taken; for the average, save the "
                f"keys with {averages!r} as a file of its own"
            )
            weights = {key: tensor for key, tensor in weights.items() if not key.startswith(averages)}
            continue
        counters = [key for key in _COUNTERS if key in weights]
        others = {key: tensor for key, tensor in weights.items() if key not in counters}
        if not counters or _shared_prefix(others) is None:
            break
        weights = others
    return weights, prefix, notes


def _shared_prefix(keys: Iterable[str]) -> str | None:
    keys = list(keys)
    return next((prefix for prefix in _PREFIXES if keys and all(key.startswith(prefix) for key in keys)), None)


def _averages_beside(weights: Mapping[str, Tensor]) -> str | None:
    """Return the prefix of keys that repeat other keys of the same state dict; None if there are none."""
    for prefix in _AVERAGE_PREFIXES:
        averaged = {key.removeprefix(prefix) for key in weights if key.startswith(prefix)}
        others = {key for key in weights if not key.startswith(prefix)}
        shared = _shared_prefix(others) or ""
        if averaged and averaged <= {key.removeprefix(shared) for key in others}:
            return prefix
    return None


def _without_mmcv_averages(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return weights without the averages of mmcv's EMAHook, and a note if there are any.

    The hook registers each average as a buffer ``ema_<key>`` of the model, with underscores for dots, and exchanges
    values with the parameters at the end of an epoch, before the file is saved.
    """
    marked = {_AVERAGE_MARK + key.replace(".", "_") for key in weights}
    averages = {key for key in weights if "." not in key and key in marked}
    if not averages:
        return weights, []
    kept = {key: tensor for key, tensor in weights.items() if key not in averages}
    note = (
        f"has two sets of weights: the plain keys are taken, {len(averages)} keys {_AVERAGE_MARK}* are not; mmcv "
        "stores the average under the plain keys at the end of an epoch, and under the others in files saved during "
        "one; for the other set, save its values under the plain keys"
    )
    return kept, [note]
