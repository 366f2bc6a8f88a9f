# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Inert placeholders for objects in torch.save files that are neither tensors nor plain values.

Checkpoints of training frameworks hold NumPy scalars, configurations and log buffers next to the weights. PyTorch's
restricted unpickler refuses them all. Here it gets a placeholder class for each of their names instead, so that no
class or function of the file is imported or called.
"""

import contextlib
import pickle
import pickletools
import re
import threading
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

_MAPPINGS = {
    "addict.addict.Dict",
    "collections.defaultdict",
    "easydict.EasyDict",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "yacs.config.CfgNode",
}
"""Classes derived from dict, read as their items. Others are recognised while reading."""

_LISTS = {"collections.deque"}
"""Classes with items like a list, read as a list. Others are recognised while reading."""

_ALLOWED_BY_TORCH = re.compile(
    r"torch\.\w+|torch\.(_utils|_tensor|storage|sparse|cuda)\.\w+|torch\.nn\.parameter\.Parameter|"
    r"torch\.serialization\._get_layout|collections\.(OrderedDict|Counter)|_codecs\.encode|"
    r"builtins\.(bytearray|set|complex)"
)
"""Names of tensors, storages and plain values. PyTorch lists the other names of its newer file format only."""

_BLOCKED_MODULES = {"nt", "os", "posix", "sys"}
"""Modules whose names PyTorch refuses even with a placeholder."""

_PICKLES_BEFORE_OBJECT = 3
"""Pickles in a file of PyTorch before 1.6 that precede the saved object: magic number, version, sizes of types."""

_lock = threading.Lock()
"""PyTorch's list of allowed names belongs to the process."""


class Placeholder:
    """An object that was not loaded. It stores nothing and does nothing.

    Attributes:
        name: module and name of its class or function in the file.
    """

    name = "unknown"

    def __new__(cls, *_: object, **__: object) -> Any:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass

    def __repr__(self) -> str:
        return f"<{self.name}, not loaded>"


class _PlaceholderMapping(Placeholder):
    """Placeholder that becomes a plain dictionary, because the file fills it with items."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return OrderedDict()


class _PlaceholderList(Placeholder):
    """Placeholder that becomes a plain list, because the file fills it with items."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return []


def load_without_code(path: Path) -> tuple[object, tuple[str, ...]]:
    """Return the content of a torch.save file, on the CPU, and the names of the objects in it that were not loaded.

    Raises:
        pickle.UnpicklingError: the file names a function of a blocked module, or cannot be read without running code.
        Exception: whatever torch.load raises for a file that it cannot read.
    """
    listed = _names_in(path)
    # PyTorch looks a name up as it stands in the file, or as Python 3 calls it.
    names = listed | {_python3_name(name) for name in listed}
    blocked = sorted(name for name in names if name.split(".")[0] in _BLOCKED_MODULES)
    if blocked:
        raise pickle.UnpicklingError(f"it calls {', '.join(blocked)}")
    kinds = dict.fromkeys(names, Placeholder)
    kinds |= dict.fromkeys(names & _MAPPINGS, _PlaceholderMapping)
    kinds |= dict.fromkeys(names & _LISTS, _PlaceholderList)
    # A placeholder that the file fills with items turns out while reading; each attempt corrects one.
    for _ in range(len(names) + 1):
        classes = {
            name: type(f"Placeholder{index}", (kinds[name],), {"name": name}) for index, name in enumerate(names)
        }
        try:
            with _allowed(classes):
                return torch.load(path, map_location="cpu", weights_only=True), tuple(sorted(listed))
        except pickle.UnpicklingError as error:
            filled = _filled_placeholder(str(error), classes)
            if filled is None or kinds[filled] is not Placeholder:
                raise
            kinds[filled] = _PlaceholderMapping if "SETITEM" in str(error) else _PlaceholderList
    raise pickle.UnpicklingError("its objects cannot be replaced by placeholders")


@contextlib.contextmanager
def _allowed(classes: dict[str, type[Placeholder]]) -> Iterator[None]:
    """Let torch.load use classes for the names in a file."""
    with _lock, torch.serialization.safe_globals([(cls, name) for name, cls in classes.items()]):
        yield


def _filled_placeholder(message: str, classes: dict[str, type[Placeholder]]) -> str | None:
    """Return the name whose placeholder PyTorch's message says cannot receive items; None for other messages."""
    if not any(word in message for word in ("SETITEM", "append", "extend")):
        return None
    return next((name for name, cls in classes.items() if f"{cls}" in message), None)


def _names_in(path: Path) -> set[str]:
    """Return the classes and functions in a torch.save file that PyTorch does not allow, without running anything."""
    if zipfile.is_zipfile(path):
        return set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    names: set[str] = set()
    with path.open("rb") as file:
        for _ in range(_PICKLES_BEFORE_OBJECT + 1):
            for opcode, argument, _position in pickletools.genops(file):
                if opcode.name == "GLOBAL" and isinstance(argument, str):
                    names.add(argument.replace(" ", ".", 1))
    return {name for name in names if not _ALLOWED_BY_TORCH.fullmatch(_python3_name(name))}


def _python3_name(name: str) -> str:
    """Return a name of Python 2 as Python 3 has it."""
    module, _, attribute = name.rpartition(".")
    module, attribute = NAME_MAPPING.get((module, attribute), (IMPORT_MAPPING.get(module, module), attribute))
    return f"{module}.{attribute}"
