# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Topics and TF frames of a node, from its parameters."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aqr_perception.models.config.yaml_file import read_yaml

NODE = "aqr_perception"
"""Name of the node, without namespace."""

DEFAULT_CAMERAS = ("front", "front_right", "front_left", "back", "back_left", "back_right")
DEFAULT_LIDAR_TOPIC = "/lidar/points"
_PARAMETERS = "ros__parameters"


class ViewError(ValueError):
    """A view cannot be made; the message names the file, the value found and the value needed."""


@dataclass(frozen=True)
class CameraTopics:
    """Topics of one camera, with their namespaces."""

    name: str
    image_topic: str
    info_topic: str
    compressed: bool = False


@dataclass(frozen=True)
class NodeTopics:
    """Topics and TF frames of a node.

    Attributes:
        node: the node's full name, such as ``/robot/aqr_perception``.
        lidar_topics: with their namespaces; empty without LiDAR.
        fixed_frame, model_frame, output_frame, base_frame: the parameters of these names.
        tracking: whether the node publishes tracks when it starts.
    """

    node: str = f"/{NODE}"
    cameras: tuple[CameraTopics, ...] = ()
    lidar_topics: tuple[str, ...] = ()
    fixed_frame: str = ""
    model_frame: str = ""
    output_frame: str = ""
    base_frame: str = ""
    tracking: bool = False

    def output(self, name: str) -> str:
        """Return an output topic, such as ``detections`` or ``weights/bev/image``."""
        return f"{self.node}/{name}"

    @property
    def vehicle_frame(self) -> str:
        """A TF frame on the vehicle, or else the fixed frame; empty if the parameters name none."""
        return self.output_frame or self.base_frame or self.model_frame or self.fixed_frame


def node_topics(values: Mapping[str, Any], node: str = f"/{NODE}") -> NodeTopics:
    """Return the topics and frames of parameter values.

    Args:
        values: parameters by name, such as ``camera.front.image_topic``; missing ones have the node's defaults.
        node: the node's full name.

    Raises:
        ViewError: a value has a wrong type.
    """

    def topic(name: str) -> str:
        if name.startswith(("/", "~/")):
            return f"{node}{name[1:]}" if name.startswith("~") else name
        return f"{node.rpartition('/')[0]}/{name}"

    several = [name for name in _texts(values, "lidar_topics", ()) if name]
    one = _text(values, "lidar_topic", "" if several else DEFAULT_LIDAR_TOPIC)
    lidars = several or ([one] if one else [])
    names = [name for name in _texts(values, "cameras", DEFAULT_CAMERAS) if name]
    cameras = [
        CameraTopics(
            name,
            topic(_text(values, f"camera.{name}.image_topic", f"/{name}/image_raw")),
            topic(_text(values, f"camera.{name}.info_topic", f"/{name}/camera_info")),
            _truth(values, f"camera.{name}.compressed"),
        )
        for name in dict.fromkeys(names)
    ]
    return NodeTopics(
        node,
        tuple(cameras),
        tuple(topic(name) for name in lidars),
        _text(values, "fixed_frame", ""),
        _text(values, "model_frame", ""),
        _text(values, "output_frame", ""),
        _text(values, "base_frame", ""),
        _truth(values, "tracking.enabled"),
    )


def read_parameters(path: Path, node: str = f"/{NODE}") -> dict[str, Any]:
    """Return the parameters that a file of ROS 2 gives a node, by dotted name.

    Of several sections for the node, later ones replace the values of earlier ones.

    Raises:
        YamlFileError: the file is missing or not YAML.
        ViewError: no section is for the node.
    """
    sections = list(_sections(read_yaml(path), ""))
    values: dict[str, Any] = {}
    fitting = [parameters for name, parameters in sections if _addresses(name, node)]
    if not fitting:
        found = ", ".join(name for name, _ in sections) or "none"
        raise ViewError(
            f"{path}: found the sections {found}, needed one for {node}; `/**:` is for every node, and "
            "a node in a namespace needs its namespace"
        )
    for parameters in fitting:
        values |= dict(_flat(parameters, ""))
    return values


def read_node_topics(
    path: Path, namespace: str = "", overrides: Mapping[str, Any] | None = None, node: str = NODE
) -> NodeTopics:
    """Return the topics and frames of a node that starts with a parameter file.

    Args:
        namespace: of the node; empty: none.
        overrides: values that replace those of the file, by dotted name.
        node: the node's name without namespace.

    Raises:
        YamlFileError, ViewError: see `read_parameters` and `node_topics`.
    """
    name = full_name(namespace, node)
    try:
        return node_topics({**read_parameters(path, name), **(overrides or {})}, name)
    except ViewError as error:
        raise error if str(error).startswith(str(path)) else ViewError(f"{path}: {error}") from error


def full_name(namespace: str, node: str = NODE) -> str:
    """Return the full name of a node in a namespace."""
    return "/".join(("", *(part for part in namespace.split("/") if part), node))


def _sections(tree: Any, prefix: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yield the name of each section of parameters, such as ``/**`` or ``/robot/aqr_perception``, with its content."""
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key == _PARAMETERS:
            yield prefix, value if isinstance(value, dict) else {}
        else:
            yield from _sections(value, f"{prefix}/{str(key).strip('/')}")


def _addresses(section: str, node: str) -> bool:
    """Return whether a section's wildcards match a node: `*` for one part of its name, `**` for any number of them."""
    parts = {"*": "/[^/]+", "**": "(/[^/]+)*"}
    pattern = "".join(parts.get(part, f"/{re.escape(part)}") for part in section.split("/")[1:])
    return re.fullmatch(pattern, node) is not None


def _flat(tree: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(values: Mapping[str, Any], name: str, default: str) -> str:
    value = values.get(name, default)
    if not isinstance(value, str):
        raise ViewError(f"{name} is {value!r}, but must be a text")
    return value


def _texts(values: Mapping[str, Any], name: str, default: Sequence[str]) -> list[str]:
    value = values.get(name, default)
    # As in the node: one text is a list of it, and an empty list, which has no type in ROS 2, is None.
    texts = [value] if isinstance(value, str) else value or ()
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise ViewError(f"{name} is {value!r}, but must be a list of texts")
    return list(texts)


def _truth(values: Mapping[str, Any], name: str) -> bool:
    value = values.get(name, False)
    if not isinstance(value, bool):
        raise ViewError(f"{name} is {value!r}, but must be true or false")
    return value
