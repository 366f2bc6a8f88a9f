# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""State of a bag's output folder: by which settings it was made, and whether it is finished."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aqr_perception
from aqr_perception.models.weights.shipped import choose_weights
from aqr_perception.offline.offline_error import OfflineError

STATE, JOURNAL = "state.json", "frames.partial"
_MOST_NAMED = 5
_CHUNK = 2**20


@dataclass
class BagState:
    """Content of ``state.json``.

    Attributes:
        made_by: settings, model, bag and version that decide about the content, by name.
        finished: whether all output files are there.
        frames, unanswered: numbers of answered frames, and of those without an answer.
        warnings: what was said, and how often.
    """

    made_by: Mapping[str, Any]
    finished: bool = False
    frames: int = 0
    unanswered: int = 0
    warnings: dict[str, int] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Replace the state of a folder at once."""
        partial = folder / f".{STATE}.partial"
        partial.write_text(json.dumps(vars(self), indent=2, sort_keys=True) + "\n")
        os.replace(partial, folder / STATE)


def made_by(values: Mapping[str, Any], bag: Path, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that decides about the content of a bag's output.

    Args:
        values: the node's parameters by name.
        outputs: which outputs are written.

    Raises:
        OSError: a file of the model or of the bag cannot be read.
    """
    preset = str(values["model.preset"])
    weights = choose_weights(preset, str(values["model.checkpoint"]) or None)
    files = sorted(path for path in bag.rglob("*") if path.is_file()) if bag.is_dir() else [bag]
    return {
        "aqr_perception": aqr_perception.__version__,
        "bag": {str(path.relative_to(bag.parent)): path.stat().st_size for path in files},
        "model file": _checksum(Path(preset)) if preset.endswith(".yaml") else "",
        "model weights": "random" if weights.path is None else _checksum(weights.path),
        "outputs": dict(outputs),
        "parameters": dict(values),
    }


def open_state(folder: Path, made: Mapping[str, Any], redo: bool) -> BagState:
    """Return the state of a bag's output folder, which is made if it is new.

    Args:
        redo: whether output by other settings is removed instead of refused.

    Raises:
        OfflineError: the folder has other files, or its output was made by other settings.
    """
    path = folder / STATE
    if not path.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise OfflineError(
                f"{folder}: found files that `aqr_perception process` did not write, needed an empty folder or a new "
                "name; choose another --output"
            )
        folder.mkdir(parents=True, exist_ok=True)
        state = BagState(json.loads(json.dumps(made)))
        state.write(folder)
        return state
    state = _read(path)
    differences = list(_differences(state.made_by, json.loads(json.dumps(made)), ""))
    if not differences and not redo:
        return state
    if not redo:
        more = len(differences) - _MOST_NAMED
        named = "; ".join(differences[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
        raise OfflineError(
            f"{folder}: found output by other settings ({named}), needed the same ones; choose another --output, or "
            "give --redo to replace it"
        )
    shutil.rmtree(folder)
    return open_state(folder, made, redo=False)


def _read(path: Path) -> BagState:
    try:
        return BagState(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise OfflineError(
            f"{path}: found no state of a bag ({error}), needed the file as it was written; give --redo"
        ) from error


def _differences(before: Any, now: Any, name: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from _differences(before.get(key), now.get(key), f"{name} {key}".strip())
    elif before != now:
        yield f"{name} {before!r} before, now {now!r}"


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
