# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The pages of documentation and the rooms of the package that they describe."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
from helpers.places import ROOT

PACKAGE = ROOT / "aqr_perception"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MADE_BY_COMMANDS = {"demo/report.html", "site/", "site/index.html"}
MOST_MODULES = 15
PARTS_OF_MODELS = {"model.py", "head.py", "encoder.py", "decoder.py"}


def package_files() -> list[Path]:
    """Return every module and data file of the package, relative to it, sorted."""
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(path.relative_to(PACKAGE) for path in files if path.name not in {"__init__.py", "py.typed"})


def rooms() -> dict[str, str]:
    """Return the cell of files that the table needs for each folder."""
    folders: dict[str, list[str]] = defaultdict(list)
    for path in package_files():
        folders[path.parent.as_posix()].append(path.stem if path.suffix == ".py" else path.name)
    return {folder: ", ".join(f"`{name}`" for name in names) for folder, names in folders.items()}


def test_the_table_of_rooms_lists_every_folder_with_its_files() -> None:
    rows = re.findall(r"^\| `([\w./]+)/` \|[^|]*\| ([^|]*) \|$", PAGE, re.MULTILINE)
    shown = dict(rows)
    wrong = [f"| `{folder}/` | ... | {files} |" for folder, files in rooms().items() if shown.get(folder) != files]
    assert not wrong, "\n".join(["rows that the table in docs/architecture.md needs:", *wrong])
    assert shown.keys() - rooms().keys() == set(), "remove these rows from the table in docs/architecture.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_path_and_link_of_a_page_exists(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(r"`((?:[a-z_]+/)+(?:\w+\.\w+)?)`", text))
    places = (PACKAGE, PACKAGE / "models", ROOT)
    missing = {path for path in named - MADE_BY_COMMANDS if not any((place / path).exists() for place in places)}
    links = {link.split("#")[0] for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text)} - {""}
    missing |= {link for link in links if not (page.parent / link).exists()}
    assert missing == set()


def test_the_order_of_the_rooms_is_the_one_that_lint_checks() -> None:
    contract = re.search(r"^layers = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    shown = re.search(r"^```text\n(cli\n.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    assert contract and shown
    assert shown[1].splitlines() == re.findall(r'"([^"]+)"', contract[1])


def test_no_folder_has_more_than_fifteen_modules() -> None:
    folders: dict[str, int] = defaultdict(int)
    for path in package_files():
        folders[path.parent.as_posix()] += 1
    assert {folder: count for folder, count in folders.items() if count > MOST_MODULES} == {}


def test_modules_share_a_name_only_where_they_are_the_same_part_of_two_models() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in package_files():
        if path.name not in PARTS_OF_MODELS:
            places[path.name].append(path.as_posix())
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}
