# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Entries of a checkpoint next to its weights: training states, and the description of the training."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aqr_perception.models.weights.placeholders import Placeholder
from aqr_perception.models.weights.weight_files import as_dict
from aqr_perception.options import BoxConvention

_DEPTH = 12
"""Largest depth of nested entries that is read; a damaged file may nest an entry in itself."""

_KINDS = (
    (r"optim", "optimiser state"),
    (r"sched", "scheduler state"),
    (r"scaler|\bamp\b", "loss scaler state"),
    (r"ema|averag|swa|current_model", "averaged or raw weights"),
    (r"^(model|state_dict|model_state_dict)$", "weights"),
    (r"rng|random|sampler|order", "random state"),
    (r"meta|args|hyper|config|cfg|options|version|classes", "description"),
    (r"step|iter|epoch|updates", "progress"),
    (r"loop|callback|hub|history|log", "record of the training"),
)
"""Kinds of entries by their names."""

_PROGRESS = ("epoch", "iter", "iteration", "step", "global_step")
_CONFIGS = ("config", "cfg", "hyper_parameters", "options", "args")
_VERSION = re.compile(r"(\w|-)*version")

_FIRST_LINES = 6
_LONGEST = 110
_MOST_LINES = 40

_CONFIG_LINE = re.compile(
    r"(?P<entry>['\"]?\b(?:\w*aqr\w*|\w*window_sizes?|\w*bias_\w+|\w*_bias|bias|\w*activation|\w*residual\w*)\b['\"]?)"
    r"\s*[=:]\s*(?P<value>dict\(|\{|\[[^\]]*\]|\([^)]*\)|[^,\s)}\]]+)"
)
"""Entries of a configuration on AQR. Its text is searched, never executed."""

_LAYER_BIAS = re.compile(r"['\"]?(bias|conv_bias|qkv_bias|norm_bias|use_bias)['\"]?$")
"""Entries on the bias of convolutions and linear layers, with true, false or 'auto'."""


@dataclass(frozen=True)
class SideEntry:
    """An entry next to the weights.

    Attributes:
        name: of the entry, with the names that lead to it.
        kind: what it is, by its name.
        tensors: number of tensors in it.
        bytes: size of these tensors; those that share memory count once.
    """

    name: str
    kind: str
    tensors: int
    bytes: int


@dataclass(frozen=True)
class Description:
    """A training's description of itself.

    Attributes:
        progress: epochs, iterations and steps by the entry's name.
        versions: of the programs that wrote the file, by the entry's name.
        classes: names of the classes; None if there are none.
        config: name of the entry with the configuration; None without one.
        first_lines: of the configuration.
        aqr_lines: entries of the configuration on AQR: switches, windows, bias, activation, residual.
    """

    progress: Mapping[str, int]
    versions: Mapping[str, str]
    classes: tuple[str, ...] | None
    config: str | None
    first_lines: tuple[str, ...]
    aqr_lines: tuple[str, ...]


def side_entries(content: object, weights: Sequence[str]) -> list[SideEntry]:
    """Return the entries next to the weights, on each level.

    Args:
        content: of the file.
        weights: names of the nested entries that hold the weights.
    """
    entries = []
    level, path = as_dict(content), ""
    for name in weights:
        if not isinstance(level, dict):
            break
        for key, value in level.items():
            if key != name:
                entries.append(_entry(f"{path}{key}", value))
        level, path = as_dict(level.get(name)), f"{path}{name}."
    return entries


def all_entries(content: object) -> list[SideEntry]:
    """Return the entries on the top level of a file without weights."""
    level = as_dict(content)
    return [_entry(str(key), value) for key, value in level.items()] if isinstance(level, dict) else []


def describe_training(content: object) -> Description:
    """Return what a file says about its training, in the entries of mmcv, mmengine, Lightning and this project."""
    top = as_dict(content)
    top = top if isinstance(top, dict) else {}
    meta = as_dict(top.get("meta"))
    places = [("meta.", meta), ("", top)] if isinstance(meta, dict) else [("", top)]
    progress: dict[str, int] = {}
    versions: dict[str, str] = {}
    config: tuple[str, str] | None = None
    for prefix, place in places:
        progress |= {
            f"{prefix}{name}": place[name]
            for name in _PROGRESS
            if isinstance(place.get(name), int) and not isinstance(place.get(name), bool)
        }
        versions |= {
            str(name): value
            for name, value in place.items()
            if isinstance(name, str) and isinstance(value, str) and _VERSION.fullmatch(name)
        }
        for name in _CONFIGS:
            text = _config_text(place.get(name))
            if config is None and text:
                config = f"{prefix}{name}", text
    lines = config[1].splitlines() if config else []
    first = tuple(_shortened(line) for line in lines if line.strip())[:_FIRST_LINES]
    return Description(
        progress, versions, described_classes(content), config[0] if config else None, first, _aqr_lines(lines)
    )


def described_classes(content: object) -> tuple[str, ...] | None:
    """Return the names of the data set's classes in a training's description; None without one."""
    top = as_dict(content)
    if not isinstance(top, dict):
        return None
    meta = as_dict(top.get("meta"))
    for place in (meta, top):
        if isinstance(place, dict):
            found = _classes(place) or _classes(as_dict(place.get("dataset_meta")))
            if found is not None:
                return found
    return None


def described_box_convention(content: object) -> tuple[BoxConvention | None, str]:
    """Return the convention of box codes in a training with mmdetection3d, and the program's name and version.

    Version 1.0 changed LiDAR boxes from (w, l, h; -yaw - pi/2) to (l, w, h; yaw). Programs on mmengine use the latter.

    Returns:
        None and an empty text without a known version.
    """
    top = as_dict(content)
    meta = as_dict(top.get("meta")) if isinstance(top, dict) else None
    if not isinstance(meta, dict):
        return None, ""
    version = meta.get("mmdet3d_version")
    if isinstance(version, str) and version[:1].isdigit():
        return ("mmdet3d_0" if version.startswith("0.") else "mmdet3d_1"), f"mmdet3d {version}"
    if isinstance(meta.get("mmengine_version"), str):
        return "mmdet3d_1", f"mmengine {meta['mmengine_version']}"
    return None, ""


def _entry(name: str, value: object) -> SideEntry:
    kind = next((kind for pattern, kind in _KINDS if re.search(pattern, name.rsplit(".", 1)[-1].lower())), None)
    if isinstance(value, Placeholder):
        kind = f"{value.name} object, not loaded"
    storages: dict[int, int] = {}
    count = 0
    for tensor in _tensors(value):
        count += 1
        if tensor.layout is torch.strided and not tensor.is_meta:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return SideEntry(name, kind or type(value).__name__, count, sum(storages.values()))


def _tensors(value: object, depth: int = 0) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
        return
    value = as_dict(value)
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    if depth < _DEPTH:
        for item in items:
            yield from _tensors(item, depth + 1)


def _classes(place: object) -> tuple[str, ...] | None:
    if isinstance(place, dict):
        for name in ("CLASSES", "classes"):
            value = place.get(name)
            if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
                return tuple(value)
    return None


def _config_text(value: object) -> str:
    """Return a configuration as text: as it is stored, or one line per entry of nested dictionaries."""
    if isinstance(value, str):
        return value
    return "\n".join(f"{name} = {item!r}" for name, item in _flat(as_dict(value)))


def _flat(value: object, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict) or depth > _DEPTH:
        return
    for key, item in value.items():
        nested = as_dict(item)
        if isinstance(nested, dict):
            yield from _flat(nested, f"{prefix}{key}.", depth + 1)
        elif isinstance(item, str | int | float | bool | list | tuple | None):
            yield f"{prefix}{key}", item


def _aqr_lines(lines: Sequence[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for line in lines:
        if line.lstrip().startswith("#"):
            continue
        for match in _CONFIG_LINE.finditer(line):
            layer = _LAYER_BIAS.match(match["entry"]) and re.match(r"(True|False|'auto'|\"auto\")", match["value"])
            if not layer:
                rest = {"dict(": "...)", "{": "...}"}.get(match["value"], "")
                found[_shortened(match[0].strip() + rest)] = None
    return tuple(found)[:_MOST_LINES]


def _shortened(line: str) -> str:
    line = "".join(character if character.isprintable() else " " for character in line.rstrip())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
