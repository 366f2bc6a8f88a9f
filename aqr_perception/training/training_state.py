# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Files for resuming a training, written atomically and read without running code."""

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aqr_perception.models.weights.checkpoint import CLASSES_ENTRY, ClassModel
from aqr_perception.training.training_options import TrainOptions

_FORMAT = 1
_NAME = re.compile(r"step_(\d+)\.pt")
_KEPT_STATES = 2


class StateError(ValueError):
    """A training state cannot be written, read or resumed; the message names the file and the remedy."""


def write_state(state: Mapping[str, Any], folder: Path, step: int) -> Path:
    """Write a state, delete all but the newest two, and return the new file.

    An existing file is complete, even after a power failure.

    Raises:
        StateError: the disk is full, or the folder is not writable.
    """
    path = folder / f"step_{step:08d}.pt"
    partial = folder / f".{path.name}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(".step_*.partial"):  # left by a process that was killed while writing
            stale.unlink()
        with partial.open("wb") as file:
            torch.save({"format": _FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(folder)
        for old in state_files(folder)[:-_KEPT_STATES]:
            old.unlink()
    except (OSError, RuntimeError) as error:
        raise StateError(
            f"{path}: cannot be written ({error}); choose a writable folder with enough free space, then resume"
        ) from error
    return path


def state_files(folder: Path) -> list[Path]:
    """Return the states in a folder, oldest first."""
    steps = {path: int(name[1]) for path in folder.glob("step_*.pt") if (name := _NAME.fullmatch(path.name))}
    return sorted(steps, key=steps.__getitem__)


def read_state(path: Path) -> dict[str, Any]:
    """Read a file of `write_state`; tensors are on the CPU.

    Raises:
        StateError: the file is missing, damaged, or written by another version of this package.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise StateError(
            f"{path}: cannot be read ({error.strerror}); when training on several machines, all need access to this "
            "folder"
        ) from error
    try:
        with file:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    # Damaged files cause many kinds of errors, including an OSError of the archive reader.
    except (pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise StateError(
            f"{path}: is damaged or not a training state ({type(error).__name__} while reading it); delete it to "
            "resume from the one before"
        ) from error
    found_format = state.get("format") if isinstance(state, dict) else None
    if found_format != _FORMAT:
        raise StateError(
            f"{path}: has format {found_format}, needed {_FORMAT}; resume it with the version that wrote it"
        )
    return state


def require_same_model(path: Path, state: Mapping[str, Any], model: nn.Module) -> None:
    """Check that a state fits a model.

    Raises:
        StateError: keys, shapes or classes differ.
    """
    classes = state.get(CLASSES_ENTRY)  # states of earlier versions have none
    if classes is not None and isinstance(model, ClassModel) and tuple(classes) != model.classes:
        raise StateError(
            f"{path}: was trained with the classes {', '.join(classes)}, but the preset has "
            f"{', '.join(model.classes)}: resume with the preset that this training began with, or choose another "
            "folder"
        )
    needed = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    stored = {name: tuple(tensor.shape) for name, tensor in state["model"].items()}
    different = sorted(name for name in needed.keys() | stored.keys() if needed.get(name) != stored.get(name))
    if different:
        raise StateError(
            f"{path}: belongs to another model ({len(different)} tensors differ, the first is {different[0]}): resume "
            "with the preset of this training, or choose another folder"
        )


def changed_options(path: Path, state: Mapping[str, Any], options: TrainOptions) -> list[str]:
    """Return a description of each option that differs from the state's; unknown options of the state are ignored.

    Raises:
        StateError: the state trained other parameters, so its optimiser state does not fit.
    """
    now = options.as_dict()
    # A state of an earlier version lacks newer options; it was trained with their defaults.
    before = {**_defaults(), **state["options"]}
    if before["train"] != now["train"]:
        raise StateError(
            f"{path}: was trained with train {before['train']!r}, but train is now {now['train']!r}: resume with "
            "the first, or start a new training from its weights in another folder"
        )
    return [f"{name} {before[name]!r} -> {value!r}" for name, value in now.items() if before[name] != value]


def _defaults() -> dict[str, object]:
    return TrainOptions(steps=1).as_dict()


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
