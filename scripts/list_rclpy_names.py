#!/usr/bin/env python3
"""List the names of an rclpy source tree: list_rclpy_names.py RCLPY_FOLDER > test/rclpy_names/DISTRIBUTION.json.

RCLPY_FOLDER is the folder `rclpy/rclpy` of a checkout of github.com/ros2/rclpy, or an installed package.
"""

import ast
import json
import sys
from pathlib import Path

_PRIVATE = ("__init__", "_parameter_overrides")
"""Names that are needed although they are not public."""

_Function = (ast.FunctionDef, ast.AsyncFunctionDef)


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Return the names of a function's parameters; `**` if it takes any keyword."""
    listed = function.args
    names = [argument.arg for argument in (*listed.posonlyargs, *listed.args, *listed.kwonlyargs)]
    return sorted(set(names) - {"self", "cls"}) + (["**"] if listed.kwarg else [])


def members(body: list[ast.stmt]) -> dict[str, list[str] | None]:
    """Return the names that statements define, with the parameters of functions; None for anything else."""
    found: dict[str, list[str] | None] = {}
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
        elif isinstance(statement, ast.If | ast.Try):
            found |= members(statement.body)
    return {name: given for name, given in found.items() if not name.startswith("_") or name in _PRIVATE}


def main() -> None:
    root = Path(sys.argv[1])
    modules = {}
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_text())
        name = ".".join(("rclpy", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
        classes = {node.name: members(node.body) for node in tree.body if isinstance(node, ast.ClassDef)}
        modules[name] = {"names": members(tree.body), "classes": classes}
    # One line a module: small files whose differences can be read.
    lines = [f"{json.dumps(name)}: {json.dumps(entry, sort_keys=True)}" for name, entry in modules.items()]
    print("{" + ",\n".join(lines) + "}")


if __name__ == "__main__":
    main()
