"""docs/architecture.md describes this tree, and the tree keeps its own rules."""

import re
from collections import defaultdict
from pathlib import Path

from helpers.places import ROOT

PACKAGE = ROOT / "aqr_perception"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
MOST_MODULES = 15
PARTS_OF_MODELS = {"__init__.py", "model.py", "head.py", "encoder.py", "decoder.py"}


def modules() -> list[Path]:
    """Every module and data file of the package, relative to it."""
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [path.relative_to(PACKAGE) for path in files if path.name not in {"__init__.py", "py.typed"}]


def rooms_of_the_tree() -> set[str]:
    """``folder/module`` of every module, ``folder/file.ext`` of every other file."""
    return {(path.with_suffix("") if path.suffix == ".py" else path).as_posix() for path in modules()}


def rooms_of_the_page() -> set[str]:
    """The same, from the table of rooms."""
    rows = re.findall(r"^\| `([\w./]+)/` \|[^|]*\|([^|]*)\|$", PAGE, re.MULTILINE)
    return {(Path(folder) / name).as_posix() for folder, files in rows for name in re.findall(r"`([^`]+)`", files)}


def test_the_table_of_rooms_lists_every_file() -> None:
    missing = sorted(rooms_of_the_tree() - rooms_of_the_page())
    assert missing == [], "add these to the table in docs/architecture.md"


def test_the_table_of_rooms_lists_no_file_that_is_gone() -> None:
    assert sorted(rooms_of_the_page() - rooms_of_the_tree()) == [], (
        "remove these from the table in docs/architecture.md"
    )


def test_every_path_that_the_pages_name_exists() -> None:
    named = set(re.findall(r"`([a-z_]+/[\w/]*(?:\.\w+)?)`", PAGE))
    missing = {path for path in named if not any((folder / path).exists() for folder in (PACKAGE, ROOT))}
    assert missing == set()


def test_the_order_of_the_rooms_is_the_one_that_lint_checks() -> None:
    contract = re.search(r"^layers = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    shown = re.search(r"^```\n(cli\n.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    assert contract and shown
    assert shown[1].split("\n")[:-1] == re.findall(r'"([^"]+)"', contract[1])


def test_no_folder_has_more_modules_than_a_reader_keeps_in_mind() -> None:
    folders: dict[Path, int] = defaultdict(int)
    for path in modules():
        folders[path.parent] += 1
    assert {folder: count for folder, count in folders.items() if count > MOST_MODULES} == {}


def test_modules_share_a_name_only_where_they_are_the_same_part_of_two_models() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in modules():
        if path.name not in PARTS_OF_MODELS:
            places[path.name].append(path.as_posix())
    assert {name: sorted(paths) for name, paths in places.items() if len(paths) > 1} == {}
