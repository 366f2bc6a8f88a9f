# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parameter files among the arguments of a process, checked before ROS 2 reads them."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aqr_perception.models.config.yaml_file import YamlFileError, read_yaml, read_yaml_texts

_FLAG = "--params-file"
_PARAMETERS = "ros__parameters"


@dataclass(frozen=True)
class ParameterFile:
    """A parameter file of ROS 2.

    Attributes:
        sections: names of the nodes that the file gives parameters to; they may contain wildcards.
    """

    path: Path
    sections: tuple[str, ...]

    def addresses(self, node: str) -> bool:
        """Return whether a section is for a node, given with its namespace, such as ``/robot/aqr_perception``."""
        return any(_addresses(section, node) for section in self.sections)

    def ignored_by(self, node: str) -> str:
        """Return a sentence for a node that no section is for."""
        found = ", ".join(self.sections) or "none"
        return f"{self.path} has no effect: found sections {found}, needed one for {node}; `/**:` is for every node"


def read(arguments: Sequence[str]) -> tuple[ParameterFile, ...]:
    """Return the parameter files among the arguments of a process.

    Raises:
        YamlFileError: a file is missing or not YAML.
    """
    return tuple(_read(Path(path)) for flag, path in itertools.pairwise(arguments) if flag == _FLAG)


def values_for(path: Path, node: str) -> dict[str, Any]:
    """Return the parameters that a file gives a node, by name; later sections of the file replace earlier ones.

    Args:
        node: name with its namespace, such as ``/robot/aqr_perception``.

    Raises:
        YamlFileError: the file is missing, not YAML, or has no section for the node.
    """
    content = read_yaml(path)
    sections = tuple(_sections(content, ""))
    values: dict[str, Any] = {}
    for section, given in _section_values(content, ""):
        if _addresses(section, node):
            values |= dict(_flat(given, ""))
    if not values:
        raise YamlFileError(ParameterFile(path, sections).ignored_by(node))
    return values


def one_line(error: Exception) -> str:
    """Return an error's text in one line, with its type if it has no text; rcl's source locations are left out."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r",? at /\S+:\d+", "", text)


def _read(path: Path) -> ParameterFile:
    try:
        documents = read_yaml_texts(path)
    except YamlFileError as error:
        raise YamlFileError(f"{_FLAG} {error}") from error
    return ParameterFile(path, tuple(section for document in documents for section in _sections(document, "")))


def _sections(tree: Any, prefix: str) -> Iterator[str]:
    for section, _ in _section_values(tree, prefix):
        yield section


def _section_values(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, dict):
        return
    for key, value in tree.items():
        if key == _PARAMETERS:
            yield prefix, value
        else:
            yield from _section_values(value, f"{prefix}/{str(key).strip('/')}")


def _flat(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield parameters by their full names, as ``camera.front.image_topic``."""
    for key, value in tree.items() if isinstance(tree, dict) else ():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _addresses(section: str, node: str) -> bool:
    """Return whether a section's wildcards match a node's full name: `*` for one part, `**` for any number of them."""
    names = node.split("/")[1:]
    matched = {0}  # numbers of parts of the name that the wildcards so far may stand for
    for part in section.split("/")[1:]:
        if part == "**":
            matched = set(range(min(matched), len(names) + 1))
        else:
            matched = {count + 1 for count in matched if names[count : count + 1] == [part] or part == "*"}
        matched = {count for count in matched if count <= len(names)}
        if not matched:
            return False
    return len(names) in matched
