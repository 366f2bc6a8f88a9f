# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Every name of ROS 2's Python packages in the code exists in every supported distribution.

The lists in test/ros_names were made from each distribution's releases, see the README there.
"""

import ast
import functools
import importlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.places import ROOT

FOLDER = ROOT / "test" / "ros_names"
SUPPORTED = ("humble", "jazzy", "kilted", "lyrical", "rolling")
ORIGINS = json.loads((FOLDER / "sources.json").read_text())
PACKAGES = tuple(ORIGINS["humble"])
UNLISTED = {"cv_bridge", "rosbag2_py", "sensor_msgs_py"}
"""Python packages of ROS 2 without a list: no source may use them before they have one."""
GUARDED = {
    "parameter_callbacks.py": {"add_pre_set_parameters_callback", "add_post_set_parameters_callback"},
}
"""Names that some distribution lacks, in the file that asks for them with `hasattr`."""


COMPILED = {"perception_node.py": {"destroy_when_not_in_use"}}
"""Members of rclpy's compiled classes, which most distributions' Python sources do not show.

All supported ones have this one (rclpy/src/rclpy/destroyable.cpp, since Humble's 3.3).
"""


OURS = {"publishers.py": {"run"}}
"""Members of our own objects with the name of a member that some distribution's rclpy lacks."""


@functools.cache
def sources() -> tuple[tuple[Path, ast.Module], ...]:
    """Return, parsed, every file that imports a package of ROS 2: modules, launch files, scripts and tests."""
    folders = (ROOT / name for name in ("aqr_perception", "launch", "scripts", "test"))
    paths = (path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in ("", ".py"))
    texts = ((path, path.read_text()) for path in paths if path.is_file() and path.name != "list_ros_names.py")
    word = re.compile(rf"^\s*(?:from|import) (?:{'|'.join((*PACKAGES, *UNLISTED))})\b", re.MULTILINE)
    return tuple((path, ast.parse(text)) for path, text in texts if word.search(text))


class Names:
    """The names of one distribution's packages.

    Attributes:
        modules: module -> its names.
        members: member of rclpy's modules and classes -> the keywords that it takes.
    """

    def __init__(self, listed: dict[str, dict[str, list[str]]]) -> None:
        self.modules, self.members = listed["modules"], listed["members"]

    def has(self, module: str, name: str) -> bool:
        return name in self.modules.get(module, ()) or f"{module}.{name}" in self.modules

    def takes(self, function: str, keyword: str) -> bool:
        keywords = self.members.get(function, ["**"])
        return not keywords or keyword in keywords or "**" in keywords


@functools.cache
def names_of(distribution: str) -> Names:
    return Names(json.loads((FOLDER / f"{distribution}.json").read_text()))


@functools.cache
def every_name() -> frozenset[str]:
    """Return the names of members that the rclpy of any distribution has."""
    return frozenset().union(*(names_of(distribution).members for distribution in SUPPORTED))


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield module and name of every import from a package of ROS 2, and of every attribute of an imported module."""
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {(alias.asname or alias.name): alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and in_ros(node.module):
            yield from ((node.module or "", alias.name) for alias in node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id, "")
            if in_ros(module):
                yield module, node.attr


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


def subscripted(tree: ast.AST) -> Iterator[str]:
    """Yield every subscripted class of a package of ROS 2, outside of quotes: rclpy's are generic since Kilted only."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    theirs = {alias.asname or alias.name for node in imports for alias in node.names if in_ros(node.module)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in theirs:
            yield f"{node.value.id}[]"


def in_ros(module: str | None) -> bool:
    return (module or "").split(".")[0] in PACKAGES


def uses_rclpy(tree: ast.AST) -> bool:
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
    return any("rclpy" in ast.unparse(node) for node in nodes)


def problems(tree: ast.Module, names: Names, guarded: set[str] = frozenset(), imports_only: bool = False) -> list[str]:
    """Return what a source needs that a distribution lacks.

    Args:
        guarded: members that are asked for before they are used, or that are our own.
        imports_only: leave out members, whose objects are often not rclpy's in tests.
    """
    found = [f"{module}.{name}" for module, name in imported(tree) if not names.has(module, name)]
    found += subscripted(tree)
    if imports_only or not uses_rclpy(tree):
        return found
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found += [f".{name}" for name in attributes & every_name() - guarded - names.members.keys()]
    return found + [f"{name}({keyword}=)" for name, keyword in called(tree) if not names.takes(name, keyword)]


def test_the_lists_are_those_of_the_supported_distributions() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {*SUPPORTED, "sources"}
    assert set(ORIGINS) == set(SUPPORTED)
    claimed = re.search(r"In a ROS 2 workspace \((.*)\)", (ROOT / "README.md").read_text())
    assert claimed and {name.lower() for name in claimed[1].split(", ")} <= set(SUPPORTED)
    assert len(sources()) > 25


@pytest.mark.parametrize("distribution", SUPPORTED)
def test_each_list_says_from_which_releases_it_is(distribution: str) -> None:
    modules = names_of(distribution).modules
    for package, origin in ORIGINS[distribution].items():
        assert package in modules
        assert origin["releases"]
        for release in origin["releases"]:
            assert release["tag"].startswith(f"release/{distribution}/{package}")
            assert re.fullmatch("[0-9a-f]{40}", release["commit"])
            assert re.fullmatch(r"20\d\d-\d\d-\d\d", release["date"])


@pytest.mark.slow
@pytest.mark.parametrize("distribution", SUPPORTED)
def test_the_code_uses_only_names_that_the_distribution_has(distribution: str) -> None:
    missing = {}
    for path, tree in sources():
        known = set().union(*(each.get(path.name, ()) for each in (GUARDED, COMPILED, OURS)))
        in_tests = path.is_relative_to(ROOT / "test")
        if found := problems(tree, names_of(distribution), known, in_tests):
            missing[str(path.relative_to(ROOT))] = found
    assert missing == {}


def test_no_source_uses_a_package_of_ros_without_a_list() -> None:
    for path, tree in (found for found in sources() if not found[0].is_relative_to(ROOT / "test")):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not UNLISTED & set(re.findall(r"\w+", ast.unparse(node))), path


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("import rclpy\nnode.add_post_set_parameters_callback(f)", ".add_post_set_parameters_callback"),
        ("from rclpy.type_hash import TypeHash", "rclpy.type_hash.TypeHash"),
        ("from rclpy.service_introspection import ServiceIntrospectionState", "rclpy.service_introspection.Service"),
        ("import rclpy\nclient.call(request, timeout_sec=1.0)", "call(timeout_sec=)"),
        ("import rclpy\nrclpy.no_such_function()", "rclpy.no_such_function"),
        ("import tf2_ros as tf\ntf.NoSuchException", "tf2_ros.NoSuchException"),
        ("from rclpy.node import Node\ndef f(node: Node[int]) -> None: ...", "Node[]"),
        ("from launch.actions import NoSuchAction", "launch.actions.NoSuchAction"),
    ],
)
def test_a_name_that_humble_lacks_is_found(text: str, missing: str) -> None:
    (problem,) = problems(ast.parse(text), names_of("humble"))
    assert problem.startswith(missing)


def test_a_name_of_a_compiled_module_is_known() -> None:
    tree = ast.parse("import tf2_ros\ntf2_ros.LookupException\ntf2_ros.BufferCore")
    assert [problems(tree, names_of(distribution)) for distribution in SUPPORTED] == [[]] * len(SUPPORTED)


def test_a_guarded_name_is_asked_for_before_it_is_used() -> None:
    for name, guarded in GUARDED.items():
        (path,) = (path for path, _ in sources() if path.name == name)
        assert any(f'hasattr(node, "{one}")' in path.read_text() for one in guarded)


def test_the_list_of_the_installed_rclpy_is_right() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
    distribution = os.environ.get("ROS_DISTRO", "")
    if distribution not in SUPPORTED:
        pytest.skip(f"there is no list of {distribution or 'this distribution'}")
    for module in ("rclpy", "rclpy.node", "rclpy.executors", "rclpy.qos", "rclpy.lifecycle"):
        installed = importlib.import_module(module)
        listed = names_of(distribution).modules[module]
        assert [name for name in listed if not hasattr(installed, name)] == []
