# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Scenes of a split: nuScenes' own splits, files of splits, and lists of scenes."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

_VERSION_OF_SPLIT = {
    "train": "trainval",
    "val": "trainval",
    "train_detect": "trainval",
    "train_track": "trainval",
    "mini_train": "mini",
    "mini_val": "mini",
    "test": "test",
}
"""End of the version that has each of nuScenes' splits."""

_SHOWN = 5

_log = logging.getLogger(__name__)


class SplitError(ValueError):
    """A split names no scene, or scenes that do not exist; the message names them and the remedy."""


def scenes_of_split(split: str | Sequence[str], folder: Path, scenes: Collection[str]) -> frozenset[str]:
    """Return the names of the scenes that a split consists of.

    Args:
        split: one or several of: a split of nuScenes (``train``, ``val``, ``test``, ``mini_train``, ``mini_val``,
            ``train_detect``, ``train_track``); a split in the version's splits.json; a file of splits, ``FILE.json``
            (a list of scenes, or splits by name, with ``FILE.json:NAME`` for one of several); a file of scenes,
            ``FILE.txt`` (one a line); the name of a scene.
        folder: folder of the version's tables.
        scenes: names of all scenes in the tables.

    Raises:
        SplitError: a split, a file or a scene does not exist, or a split belongs to another version.
    """
    parts = [split] if isinstance(split, str) else list(split)
    return frozenset().union(*(_scenes_of(part, folder, scenes) for part in parts))


def _scenes_of(split: str, folder: Path, scenes: Collection[str]) -> frozenset[str]:
    named = _splits_beside_tables(folder)
    if split in named:
        return _existing(named[split], f"split {split!r} of {folder / 'splits.json'}", scenes)
    predefined = _predefined_splits()
    if split in predefined:
        return _existing_predefined(split, predefined[split], folder, scenes)
    path, _, name = split.partition(".json:")
    file = Path(f"{path}.json" if name else path)
    if file.suffix in (".json", ".txt"):
        return _existing(_scenes_in_file(file, name), f"split {split!r}", scenes)
    if split in scenes:
        return frozenset({split})
    known = ", ".join([*predefined, *named])
    raise SplitError(
        f"split is {split!r}, but must be one of {known}, a .json or .txt file, or a scene in {folder}, such as "
        f"{_shown(sorted(scenes)) or 'none'}"
    )


def _existing_predefined(split: str, wanted: Collection[str], folder: Path, scenes: Collection[str]) -> frozenset[str]:
    """Return the scenes of one of nuScenes' splits; a part of nuScenes may have some of them only."""
    found = frozenset(wanted) & frozenset(scenes)
    version = _VERSION_OF_SPLIT[split]
    others = sorted(set(_VERSION_OF_SPLIT.values()) - {version})
    if not found or any(folder.name.endswith(other) for other in others):
        own = [name for name, of in _VERSION_OF_SPLIT.items() if folder.name.endswith(of)]
        choice = f"one of {', '.join(own)}" if own else "another split"
        raise SplitError(
            f"{folder}: found {len(found) or 'no'} scene{'s' * (len(found) > 1)} of split {split!r}, which belongs to "
            f"v1.0-{version}, needed one of this version; choose {choice}"
        )
    if len(found) < len(wanted):
        _log.warning("%s: has %d of the %d scenes of split %r", folder, len(found), len(wanted), split)
    return found


def _existing(wanted: Collection[str], name: str, scenes: Collection[str]) -> frozenset[str]:
    missing = sorted(set(wanted) - set(scenes))
    if missing or not wanted:
        found = f"scenes that the tables do not have: {_shown(missing)}" if missing else "no scene"
        raise SplitError(f"{name}: found {found}; needed names of scenes, such as {_shown(sorted(scenes)) or 'none'}")
    return frozenset(wanted)


def _predefined_splits() -> Mapping[str, Sequence[str]]:
    from nuscenes.utils.splits import create_splits_scenes

    splits: dict[str, list[str]] = create_splits_scenes()
    return splits


def _splits_beside_tables(folder: Path) -> Mapping[str, Sequence[str]]:
    """Return the splits in the version's splits.json, the devkit's place for own splits; none without one."""
    file = folder / "splits.json"
    content = _read_json(file) if file.is_file() else {}
    if not isinstance(content, dict):
        raise SplitError(f"{file}: found {type(content).__name__}, needed splits by name: {{NAME: [SCENE, ...]}}")
    return {str(name): _names(scenes, f"{file}: {name}") for name, scenes in content.items()}


def _scenes_in_file(file: Path, name: str) -> Sequence[str]:
    if not file.is_file():
        raise SplitError(f"{file}: no such file; needed a list of scenes, .json or .txt")
    if file.suffix == ".txt":
        lines = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
        return [line for line in lines if line]
    content = _read_json(file)
    if not isinstance(content, dict):
        return _names(content, str(file))
    if name not in content and (name or len(content) != 1):
        found = ", ".join(map(str, content)) or "none"
        raise SplitError(f"{file}: has the splits {found}; give one of them as {file}:NAME")
    return _names(content[name] if name else next(iter(content.values())), f"{file}: {name}")


def _read_json(file: Path) -> object:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise SplitError(f"{file}: cannot be read ({error}); needed JSON, {{NAME: [SCENE, ...]}}") from error


def _names(scenes: object, place: str) -> Sequence[str]:
    if not isinstance(scenes, list) or not all(isinstance(scene, str) for scene in scenes):
        raise SplitError(f"{place}: found {str(scenes)[:80]}, needed a list of names of scenes")
    return scenes


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
