# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Strict conversion of YAML values to typed dataclasses: no unknown, missing or wrongly typed entries."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from aqr_perception.options import OptionError


class WrongValueError(ValueError):
    """A value has the wrong type; the message names its place, the value found and the type needed."""


def read(kind: Any, value: Any, where: str) -> Any:
    """Return ``value`` as ``kind``: a dataclass, tuple, mapping, literal, optional or scalar type.

    Dataclass fields with ``metadata={"from_file": False}`` are not read and keep their defaults.

    Args:
        where: the file and the entries that lead to the value; error messages start with it.

    Raises:
        WrongValueError: the value has the wrong type, or the dataclass rejects it.
    """
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        (inner,) = (argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else read(inner, value, where)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            if not isinstance(value, list):
                raise WrongValueError(f"{where}: found {value!r}, needed a list")
            arguments = arguments[:1] * len(value)
        if not isinstance(value, list) or len(value) != len(arguments):
            raise WrongValueError(f"{where}: found {value!r}, needed a list of {len(arguments)}")
        return tuple(read(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(arguments, value, strict=True)))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise WrongValueError(f"{where}: found {value!r}, needed a mapping")
        key_kind, value_kind = arguments
        return {
            read(key_kind, key, f"{where}: key"): read(value_kind, item, f"{where}: {key}")
            for key, item in value.items()
        }
    if origin is Literal:
        if value not in arguments:
            raise WrongValueError(f"{where}: found {value!r}, needed one of {', '.join(map(repr, arguments))}")
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise WrongValueError(f"{where}: found an integer beyond 1e308, needed a number") from error
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise WrongValueError(f"{where}: found {value!r}, needed {kind.__name__}")
    return value


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise WrongValueError(f"{where}: found {value!r}, needed a mapping")
    kinds = typing.get_type_hints(kind)
    entries = {entry.name: entry for entry in dataclasses.fields(kind) if entry.metadata.get("from_file", True)}
    required = {
        name
        for name, entry in entries.items()
        if entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
    }
    unknown, missing = sorted(set(value) - set(entries)), sorted(required - set(value))
    if unknown or missing:
        raise WrongValueError(
            f"{where}: unknown entries {unknown}, missing entries {missing}; the entries are {sorted(entries)}"
        )
    try:
        return kind(**{name: read(kinds[name], item, f"{where}: {name}") for name, item in value.items()})
    except OptionError as error:
        raise WrongValueError(f"{where}: {error}") from error
