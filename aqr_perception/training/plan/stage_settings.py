# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The settings that a stage was started with, as plain values, and their differences to those of today."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aqr_perception.models.config.presets import load_preset
from aqr_perception.training.plan.plan_file import Stage

_HARMLESS = ("workers", "checkpoint_every", "overfit")
"""Settings that change neither samples nor weights."""
_FILES = ("checkpoint", "backbone", "branches", "rig")
_PRESET_LEFT_OUT = ("name", "description")
_FACTORS = "learning_rate_factors"


def recorded_settings(stage: Stage) -> dict[str, Any]:
    """Return everything that decides a stage's weights, as JSON holds it: its entries, its preset, its files' content.

    Where cached data lies is left out: moved caches change nothing.
    """
    settings = stage.settings
    record: dict[str, Any] = {}
    for entry in dataclasses.fields(settings):
        value = getattr(settings, entry.name)
        if entry.name in _HARMLESS or entry.name == "model":
            continue
        if entry.name in _FILES:
            start = stage.starts.get(entry.name)
            value = str(start) if start else None if value is None else f"a file with the hash {_hash(value)}"
        elif entry.name == "feature_cache":
            value = value is not None  # maps from a cache have the precision of fp16
        elif entry.name == "data_root":
            value = None if settings.data == "synthetic" or value is None else str(value)
        record[entry.name.replace("_", "-")] = value
    preset = load_preset(settings.model)
    record["model"] = {
        name: value for name, value in dataclasses.asdict(preset).items() if name not in _PRESET_LEFT_OUT
    }
    plain: dict[str, Any] = json.loads(json.dumps(record))
    return plain


def changed_settings(before: Mapping[str, Any], stage: Stage) -> list[str]:
    """Return a description of each setting of a stage with another value than before, by its place.

    Args:
        before: recorded settings. One of an earlier version lacks newer entries: it was trained with their defaults.
        stage: the stage as it is now.
    """
    defaults = {name.replace("_", "-"): value for name, value in _defaults(stage.settings).items()}
    defaults |= {"feature-cache": False, "model": _defaults(load_preset(stage.settings.model))}
    return list(_changes(before, recorded_settings(stage), json.loads(json.dumps(defaults)), ""))


def _changes(
    before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any], place: str
) -> Iterator[str]:
    for key, value in now.items():
        old = before[key] if key in before else defaults.get(key)
        if old == value:
            continue
        if isinstance(old, dict) and isinstance(value, dict) and key.replace("-", "_") != _FACTORS:
            yield from _changes(old, value, defaults.get(key) or {}, f"{place}{key}.")
        else:
            yield f"{place}{key} {json.dumps(old)} -> {json.dumps(value)}"


def _defaults(instance: Any) -> dict[str, Any]:
    """Return the default of each entry of a dataclass that has one, and those of the dataclasses that it holds."""
    defaults: dict[str, Any] = {}
    for entry in dataclasses.fields(instance):
        value = getattr(instance, entry.name)
        if dataclasses.is_dataclass(value):
            defaults[entry.name] = _defaults(value)
        elif entry.default is not dataclasses.MISSING:
            defaults[entry.name] = entry.default
        elif entry.default_factory is not dataclasses.MISSING:
            defaults[entry.name] = entry.default_factory()
    return defaults


def _hash(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=8)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
