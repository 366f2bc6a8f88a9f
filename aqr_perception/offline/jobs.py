# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The bags among the arguments of a command, each with a folder for its output."""

from collections.abc import Sequence
from pathlib import Path

from aqr_perception.offline.offline_error import OfflineError

_ENDINGS = (".mcap", ".db3")


def bag_paths(given: Sequence[Path]) -> list[Path]:
    """Return the bags among paths: files, rosbag2 folders, and folders with several of them.

    A path that is none of these stays, so that its error is said with the other bags'.

    Raises:
        OfflineError: a folder has no bag.
    """
    paths: list[Path] = []
    for path in given:
        if not path.is_dir() or (path / "metadata.yaml").is_file():
            paths.append(path)
            continue
        inside = sorted(
            entry for entry in path.iterdir() if entry.suffix in _ENDINGS or (entry / "metadata.yaml").is_file()
        )
        if not inside:
            raise OfflineError(f"{path}: found no bag, needed .mcap or .db3 files, or rosbag2 folders")
        paths += inside
    return list({path.resolve(): path for path in paths}.values())


def output_folders(bags: Sequence[Path], output: Path) -> dict[Path, Path]:
    """Return the output folder of each bag: the bag's name in the folder `output`.

    Raises:
        OfflineError: two bags have one name.
    """
    folders: dict[Path, Path] = {}
    owners: dict[str, Path] = {}
    for bag in bags:
        full = bag.resolve()
        name = full.stem if full.suffix in _ENDINGS else full.name
        if name in owners:
            raise OfflineError(
                f"{owners[name]} and {bag} are both named {name}, needed different names; rename one, "
                "or process them with different --output"
            )
        owners[name] = bag
        folders[bag] = output / name
    return folders
