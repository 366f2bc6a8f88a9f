"""Every name of rclpy in the code exists in every supported distribution.

The lists in test/rclpy_names were made from each distribution's sources, see the README there.
"""

import ast
import importlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.places import ROOT

FOLDER = ROOT / "test" / "rclpy_names"
DISTRIBUTIONS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
SOURCES = [
    path
    for folder in ("aqr_perception/nodes", "aqr_perception/demo/live", "scripts")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and path.suffix in ("", ".py") and "rclpy" in path.read_text()
]
GUARDED = {
    "parameter_callbacks.py": {"add_pre_set_parameters_callback", "add_post_set_parameters_callback"},
}
"""Names that some distribution lacks, in the file that asks for them with `hasattr`."""


class Names:
    """The names of one distribution's rclpy."""

    def __init__(self, modules: dict[str, Any]) -> None:
        self.modules = modules
        self.members: dict[str, set[str]] = {}
        for module in modules.values():
            for members in (module["names"], *module["classes"].values()):
                for name, keywords in members.items():
                    if keywords is not None:  # a function
                        self.members.setdefault(name, set()).update(keywords)
            for name, members in module["classes"].items():
                # Keywords of a class are those of its constructor; a class without one takes those of its base.
                self.members.setdefault(name, set()).update(members.get("__init__") or ["**"])

    def has(self, module: str, name: str) -> bool:
        found = self.modules.get(module, {"names": {}, "classes": {}})
        return name in found["names"] or name in found["classes"] or f"{module}.{name}" in self.modules

    def takes(self, function: str, keyword: str) -> bool:
        keywords = self.members.get(function, {"**"})
        return not keywords or keyword in keywords or "**" in keywords


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield module and name of every import from rclpy, and of every attribute of the package itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rclpy":
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rclpy":
            yield "rclpy", node.attr


def called(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield function and keyword of every call by keyword of a method, or of a name from rclpy."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and "rclpy" in (node.module or "")]
    own = {alias.asname or alias.name for node in imports for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if isinstance(node.func, ast.Name) and function not in own:
                continue
            yield from ((function, keyword.arg) for keyword in node.keywords if keyword.arg)


def attributes(tree: ast.AST) -> set[str]:
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def problems(text: str, names: Names, every: set[str], guarded: set[str] = frozenset()) -> list[str]:
    """Return what a source needs that a distribution's rclpy lacks.

    Args:
        every: names that the rclpy of any distribution has.
    """
    tree = ast.parse(text)
    found = [f"{module}.{name}" for module, name in imported(tree) if not names.has(module, name)]
    found += [f".{name}" for name in attributes(tree) & every - guarded - names.members.keys()]
    return found + [f"{name}({keyword}=)" for name, keyword in called(tree) if not names.takes(name, keyword)]


ALL = {name: Names(modules) for name, modules in DISTRIBUTIONS.items()}
EVERY = set().union(*(names.members for names in ALL.values()))


def test_the_lists_are_those_of_the_supported_distributions() -> None:
    assert set(ALL) == {"humble", "jazzy", "kilted"}
    supported = re.search(r"In a ROS 2 workspace \((.*)\)", (ROOT / "README.md").read_text())
    assert supported and set(ALL) <= {name.lower() for name in supported[1].split(", ")}
    assert len(SOURCES) > 10


@pytest.mark.parametrize("distribution", list(ALL))
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_source_uses_only_names_of_rclpy_that_the_distribution_has(path: Path, distribution: str) -> None:
    guarded = GUARDED.get(path.name, set())
    assert problems(path.read_text(), ALL[distribution], EVERY, guarded) == []


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("node.add_post_set_parameters_callback(f)", ".add_post_set_parameters_callback"),
        ("from rclpy.type_hash import TypeHash", "rclpy.type_hash.TypeHash"),
        ("from rclpy.service_introspection import ServiceIntrospectionState", "rclpy.service_introspection.Service"),
        ("client.call(request, timeout_sec=1.0)", "call(timeout_sec=)"),
        ("import rclpy\nrclpy.no_such_function()", "rclpy.no_such_function"),
    ],
)
def test_a_name_that_humble_lacks_is_found(text: str, missing: str) -> None:
    (problem,) = problems(text, ALL["humble"], EVERY)
    assert problem.startswith(missing)


def test_a_guarded_name_is_asked_for_before_it_is_used() -> None:
    for name, guarded in GUARDED.items():
        (path,) = (path for path in SOURCES if path.name == name)
        assert any(f'hasattr(node, "{one}")' in path.read_text() for one in guarded)


def test_the_list_of_the_installed_rclpy_is_current() -> None:
    rclpy = pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
    listed = DISTRIBUTIONS.get(os.environ.get("ROS_DISTRO", ""))
    if listed is None:
        pytest.skip("there is no list of this distribution")
    node = importlib.import_module("rclpy.node").Node
    public = {name for name in vars(node) if not name.startswith("_")}
    assert public <= set(listed["rclpy.node"]["classes"]["Node"])
    assert rclpy.__name__ in listed
