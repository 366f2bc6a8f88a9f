"""Checkpoints of a training under way: written whole or not at all, and read without running code."""

import os
import pickle
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from aqr_perception.training.training_options import TrainOptions

_FORMAT = 1
_NAME = re.compile(r"step_(\d+)\.pt")


class StateError(ValueError):
    """A training's state cannot be written, read or continued; the message names the file and the remedy."""


def write(state: dict[str, Any], folder: Path, step: int, keep: int = 2) -> Path:
    """Write a state and return its file; all but the newest `keep` are deleted.

    A reader, also one after a power cut, finds the file whole or not at all.

    Raises:
        StateError: the disk is full, or the folder cannot be written to.
    """
    path = folder / f"step_{step:08d}.pt"
    partial = folder / f".{path.name}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(".step_*.partial"):  # of a process that was killed while writing
            stale.unlink()
        with partial.open("wb") as file:
            torch.save({"format": _FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(folder)
        for old in states(folder)[:-keep]:
            old.unlink()
    except (OSError, RuntimeError) as error:
        raise StateError(
            f"{path}: cannot be written ({error}); choose a writable folder with enough free space, then resume"
        ) from error
    return path


def states(folder: Path) -> list[Path]:
    """Return a folder's states, oldest first."""
    steps = {path: int(name[1]) for path in folder.glob("step_*.pt") if (name := _NAME.fullmatch(path.name))}
    return sorted(steps, key=steps.__getitem__)


def read(path: Path) -> dict[str, Any]:
    """Read what `write` wrote; tensors on the CPU.

    Raises:
        StateError: the file is missing, damaged, or of another version of this package.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise StateError(
            f"{path}: cannot be read ({error.strerror}); in a training on several machines all need to see this folder"
        ) from error
    try:
        with file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    # A damaged file shows itself in many ways, an OSError of the archive reader among them.
    except (pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise StateError(
            f"{path}: is damaged or no state of a training ({type(error).__name__} while reading it); delete it to "
            "resume from the one before"
        ) from error
    found = state.get("format") if isinstance(state, dict) else None
    if found != _FORMAT:
        raise StateError(f"{path}: has format {found}, needed {_FORMAT}; resume it with the version that wrote it")
    return state


def require_same_model(path: Path, state: Mapping[str, Any], model: nn.Module) -> None:
    """Refuse a state of another model.

    Raises:
        StateError: keys or shapes differ.
    """
    needed = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    stored = {name: tuple(tensor.shape) for name, tensor in state["model"].items()}
    different = sorted(name for name in needed.keys() | stored.keys() if needed.get(name) != stored.get(name))
    if different:
        raise StateError(
            f"{path}: is of another model ({len(different)} of its tensors differ, {different[0]} first): resume with "
            "the preset that this training began with, or choose another folder"
        )


def changed_options(path: Path, state: Mapping[str, Any], options: TrainOptions) -> list[str]:
    """Return a phrase for each option that the state's training had otherwise: they are the user's business.

    Raises:
        StateError: other parameters were trained, whose optimiser state would be of no use.
    """
    before, now = state["options"], options.as_dict()
    if before["train"] != now["train"]:
        raise StateError(
            f"{path}: trained {before['train']!r}, now {now['train']!r} is asked for: resume with the former, or start "
            "anew from its weights in another folder"
        )
    return [f"{name} {before.get(name)!r} -> {value!r}" for name, value in now.items() if before.get(name) != value]


def seed_random_states(seed: int) -> None:
    """Seed this process's global random numbers of Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_states() -> dict[str, Any]:
    """Return this process's states of Python's, NumPy's and PyTorch's global random numbers, as plain values."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Restore what `random_states` returned."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
