"""The pages of documentation and the rooms of the package that they describe."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
from helpers.places import ROOT

PACKAGE = ROOT / "aqr_perception"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MADE_BY_COMMANDS = {"demo/report.html"}
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_path_and_link_of_a_page_exists(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(r"`((?:[a-z_]+/)+(?:\w+\.\w+)?)`", text))
    places = (PACKAGE, ROOT, PACKAGE / "models")
    missing = {path for path in named - MADE_BY_COMMANDS if not any((place / path).exists() for place in places)}
    links = {link.split("#")[0] for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text)} - {""}
    missing |= {link for link in links if not (page.parent / link).exists()}
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
