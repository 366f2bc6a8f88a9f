# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pages of the documentation, their blocks of commands, and the scripts that write them."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

from helpers.places import ROOT

PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.parent.name != "reference"),
)
"""Pages that people write; those in docs/reference/ are made from the code."""

_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SHELL = ("", "bash", "console")
"""Languages of blocks with commands."""


def block_lines(page: Path) -> list[str]:
    """Return the lines of a page's blocks of commands, with continued lines joined and without comments."""
    blocks = [body for language, body in _BLOCK.findall(page.read_text()) if language.strip() in _SHELL]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [stripped for line in lines if (stripped := re.sub(r"(^|\s)#.*", "", line).strip().removeprefix("$ "))]


def inline_code(page: Path) -> list[str]:
    """Return the code in a page's prose."""
    return re.findall(r"`([^`\n]+)`", _BLOCK.sub("", page.read_text()))


@cache
def script(path: str) -> ModuleType:
    """Return a script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def texts_of_the_code() -> tuple[str, ...]:
    """Return the texts in the code of package and set-up, without docstrings; `...` stands for what is filled in."""
    texts = [text for path in sorted((ROOT / "aqr_perception").rglob("*.py")) for text in _texts(path)]
    setup = (ROOT / "ros_from_pip" / "setup.sh").read_text()
    texts += [re.sub(r"\$(\{[^}]*\}|\w+|\([^)]*\))", "...", line) for line in setup.splitlines()]
    return tuple(dict.fromkeys(texts))


def _texts(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value
