# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""YAML files of users, read with limits on size, depth and aliases."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

_MOST_BYTES = 200_000
_MOST_VALUES = 10_000
_DEEPEST = 50


class YamlFileError(ValueError):
    """A YAML file cannot be read; the message names the file, what was found and what is needed."""


class _LimitedComposer:
    """Part of a loader that counts values, those behind aliases each time, and the depth of nested values."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)  # type: ignore[call-arg]
        self._depth = 0
        self._values = 0
        self._values_behind: dict[str, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[attr-defined]
        is_alias = isinstance(event, yaml.AliasEvent)
        before, self._depth = self._values, self._depth + 1
        # An alias to the value in which it stands is not in the table yet: it would be endless.
        self._values += self._values_behind.get(event.anchor, _MOST_VALUES) if is_alias else 1
        if self._values > _MOST_VALUES:
            raise yaml.YAMLError(f"more than {_MOST_VALUES} values with those behind aliases, or an alias to itself")
        if self._depth > _DEEPEST:
            raise yaml.YAMLError(f"more than {_DEEPEST} nested values")
        node = super().compose_node(parent, index)  # type: ignore[misc]
        self._depth -= 1
        if event.anchor is not None and not is_alias:
            self._values_behind[event.anchor] = self._values - before
        return node


class _Loader(_LimitedComposer, yaml.SafeLoader):
    pass


class _UniqueLoader(_Loader):
    """A loader that refuses mappings with the same entry twice, of which YAML's takes the last."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.YAMLError(f"line {key.start_mark.line + 1} has the entry {key.value!r} again")
                seen.add(key.value)
        return node


class _TextLoader(_LimitedComposer, yaml.BaseLoader):
    pass


def read_yaml(path: Path, unique: bool = False) -> Any:
    """Return the content of a YAML file with one document.

    Args:
        path: path of the file.
        unique: refuse mappings with the same entry twice.

    Raises:
        YamlFileError: the file is missing, not YAML, or larger or deeper than any file that a person writes.
    """
    documents = list(_documents(path, _UniqueLoader if unique else _Loader))
    if len(documents) != 1:
        raise YamlFileError(f"{path}: found {len(documents)} YAML documents, needed one")
    return documents[0]


def read_yaml_texts(path: Path) -> list[Any]:
    """Return the documents of a YAML file, with all scalars as text; raises the same as `read_yaml`."""
    return list(_documents(path, _TextLoader))


def _documents(path: Path, loader: type) -> Iterator[Any]:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise YamlFileError(f"{path}: found {found}, needed a YAML file")
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise YamlFileError(f"{path}: found {size} bytes, needed a YAML file of at most {_MOST_BYTES}")
        yield from yaml.load_all(path.read_text(encoding="utf-8"), loader)
    except YamlFileError:
        raise
    # ValueError: text of another encoding, and numbers and dates that Python does not have.
    except (yaml.YAMLError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise YamlFileError(f"{path}: found invalid YAML ({reason}), needed a YAML file") from error
