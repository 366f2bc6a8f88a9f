#!/usr/bin/env python3
# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""List the names of ROS 2's Python packages: list_ros_names.py FOLDER [FOLDER...] > test/ros_names/DISTRIBUTION.json.

FOLDER holds the Python packages of one release of a distribution (FOLDER/rclpy, FOLDER/tf2_ros, ...), or is the
site-packages of an installed one. With several folders, only the names that all of them have are listed.
"""

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("rclpy", "tf2_ros", "tf2_py", "message_filters", "tf_transformations", "launch", "launch_ros")
_ONLY_ENTRIES = ("launch", "launch_ros")
"""Packages of which the modules inside of subpackages are left out."""
_PRIVATE = ("__init__", "_parameter_overrides")
"""Names that are needed although they are not public."""
_COMPILED_NAME = re.compile(r'(?:PyModule_AddObject(?:Ref)?|PyDict_SetItemString)\(\s*\w+,\s*"(\w+)"')

_Function = (ast.FunctionDef, ast.AsyncFunctionDef)
Members = dict[str, list[str] | None]
"""Name -> parameters of a function; None for anything else."""


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Return the names of a function's parameters; `**` if it takes any keyword."""
    listed = function.args
    names = [argument.arg for argument in (*listed.posonlyargs, *listed.args, *listed.kwonlyargs)]
    return sorted(set(names) - {"self", "cls"}) + (["**"] if listed.kwarg else [])


def members(body: list[ast.stmt]) -> Members:
    """Return the names that statements define, with the parameters of functions; None for anything else."""
    found: Members = {}
    for statement in body:
        if isinstance(statement, _Function):
            found[statement.name] = sorted({*(found.get(statement.name) or ()), *parameters(statement)})
            # Attributes of instances are assigned in methods.
            nodes = [node for node in ast.walk(statement) if isinstance(node, ast.Attribute)]
            found = {**{node.attr: None for node in nodes if isinstance(node.ctx, ast.Store)}, **found}
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            found |= {target.id: None for target in targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0]: None for alias in statement.names}
        elif isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            continue
        elif isinstance(statement, ast.If | ast.Try | ast.With):
            found |= members(statement.body)
    return {name: given for name, given in found.items() if not name.startswith("_") or name in _PRIVATE}


def starred(module: str, tree: ast.Module, is_package: bool) -> list[str]:
    """Return the modules of which a module imports everything."""
    found = []
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and [alias.name for alias in statement.names] == ["*"]:
            parts = module.split(".")
            if statement.level:
                parts = parts[: len(parts) - statement.level + is_package]
                found.append(".".join([*parts, *filter(None, [statement.module])]))
            else:
                found.append(statement.module or "")
    return found


def all_members(trees: list[ast.Module]) -> Members:
    """Return the functions of modules, the members of their classes, and the classes, whose constructor gives `**`.

    Keywords of a class are those of its constructor; one without a constructor takes those of its base.
    """
    found: dict[str, set[str]] = {}
    for tree in trees:
        classes = [(node.name, members(node.body)) for node in tree.body if isinstance(node, ast.ClassDef)]
        for listed in (members(tree.body), *(members_of for _, members_of in classes)):
            for name, keywords in listed.items():
                if keywords is not None:
                    found.setdefault(name, set()).update(keywords)
        for name, members_of in classes:
            found.setdefault(name, set()).update(members_of.get("__init__") or ["**"])
    return {name: sorted(keywords) for name, keywords in found.items()}


def read(folder: Path) -> dict[str, Any]:
    """Return `modules`, the names in each module, and `members`, those of rclpy's modules and classes."""
    modules: dict[str, set[str]] = {}
    stars: dict[str, list[str]] = {}
    in_rclpy = []
    for package in PACKAGES:
        for path in sorted((folder / package).rglob("*.py")):
            tree = ast.parse(path.read_text())
            parts = path.relative_to(folder).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            if package in _ONLY_ENTRIES and len(parts) > 2 and not is_package:
                continue
            name = ".".join(parts).removesuffix(".__init__")
            modules[name] = {*members(tree.body), *(node.name for node in tree.body if isinstance(node, ast.ClassDef))}
            stars[name] = starred(name, tree, is_package)
            if package == "rclpy":
                in_rclpy.append(tree)
        for path in sorted((folder / package).rglob("*.cpp")):  # a module in C++ gives its names to the package
            modules.setdefault(package, set()).update(_COMPILED_NAME.findall(path.read_text(errors="replace")))
    for _ in PACKAGES:  # stars of stars
        for name, imported in stars.items():
            modules[name].update(*(modules.get(source, ()) for source in imported))
    return {
        "modules": {name: sorted(names - {"*"}) for name, names in modules.items()},
        "members": all_members(in_rclpy),
    }


def common(one: Any, other: Any) -> Any:
    """Return what both of two lists have: modules, names, and parameters."""
    if isinstance(one, dict):
        return {name: common(one[name], other[name]) for name in one if name in other}
    return [name for name in one if name in other]


def main() -> None:
    listed, *others = [read(Path(folder)) for folder in sys.argv[1:]]
    for other in others:
        listed = common(listed, other)
    # One line a module, one a member: files whose differences can be read.
    parts = []
    for part, entries in listed.items():
        lines = [f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(entries.items())]
        parts.append(f'"{part}": {{\n' + ",\n".join(lines) + "\n}")
    print("{\n" + ",\n".join(parts) + "\n}")


if __name__ == "__main__":
    main()
