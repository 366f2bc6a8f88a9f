# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Settings of a bag: the node's parameters from a parameter file, or from the topics of the bag."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from rclpy.node import Node

from aqr_perception.bags.poses import TransformTree
from aqr_perception.bags.reader import BagReader
from aqr_perception.data.sources.bag_topics import COMPRESSED, bag_rig, fixed_frame
from aqr_perception.nodes.input.frame_request import AssemblerSettings
from aqr_perception.nodes.parameters import declared_values, node_settings, parameter_files
from aqr_perception.nodes.parameters.declaration import Overrides
from aqr_perception.nodes.parameters.node_settings import Settings
from aqr_perception.options import OptionError

_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
_REMEDY = "give a parameter file (--params), which `aqr_perception inspect BAG --params FILE` writes"
_IRRELEVANT = ("autostart", "sensor_reliability", "max_latency", "model.directories", "model.device", "pipelining")
"""Parameters without an effect on what is detected in a bag."""


@dataclass(frozen=True)
class GivenParameters:
    """What a user gave the node's parameters.

    Attributes:
        file: parameter file of ROS 2; None: the topics are those of the bag.
        values: parameters by name, which replace those of the file.
        namespace: of the node, without slashes at the ends; empty: none.
    """

    file: Path | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    namespace: str = ""

    @property
    def node(self) -> str:
        """Full name of the node."""
        return "/".join(("", *filter(None, (self.namespace,)), "aqr_perception"))

    def from_file(self) -> dict[str, Any]:
        """Return the given values by name, without those of a bag.

        Raises:
            YamlFileError, OptionError: the file is missing, not YAML, or for other nodes.
        """
        found: dict[str, Any] = {}
        if self.file is not None:
            found = parameter_files.values_for(self.file, self.node)
        given = {name: _number(value) for name, value in {**found, **self.values}.items()}
        if "model.preset" in self.values and "model.checkpoint" not in self.values:
            given["model.checkpoint"] = ""  # weights of the file's model do not fit another one
        return given


@dataclass(frozen=True)
class BagSettings:
    """Settings for a bag.

    Attributes:
        settings: with absolute topics.
        values: all parameters that matter for the detections, by name.
        remarks: what the user should know about the parameters.
    """

    settings: Settings
    values: Mapping[str, Any]
    remarks: tuple[str, ...]


def settings_for(given: GivenParameters, bag: BagReader | None) -> BagSettings:
    """Return the settings for a bag; without a bag, those of the parameters alone.

    Raises:
        OptionError: a value is invalid.
        BagError: there is no parameter file, and the topics of the bag leave a choice.
    """
    values = given.from_file()
    remarks: list[str] = []
    if given.file is None and bag is not None:
        shown = shown_parameters(bag)
        values = {**shown, **values}
        remarks.append(f"topics from the bag: {', '.join(f'{name} {value!r}' for name, value in shown.items())}")
    node = cast(Node, _NodeStandIn(values))
    overrides = Overrides(node)
    declared = declared_values.declare(node, overrides)
    if overrides.problems:
        raise OptionError("; ".join(overrides.problems.values()))
    remarks += declared_values.ignored(overrides, declared)
    settings = node_settings.read(declared)
    assembler = _with_absolute_topics(settings.assembler, given.namespace)
    relevant = {name: value for name, value in sorted(declared.items()) if name not in _IRRELEVANT}
    return BagSettings(replace(settings, assembler=assembler), relevant, tuple(remarks))


def shown_parameters(bag: BagReader) -> dict[str, Any]:
    """Return parameters that run a bag, as its topics and transforms show.

    Raises:
        BagError: they leave a choice.
    """
    rig = bag_rig(bag, None, _REMEDY)
    types = {topic.name: topic.type for topic in bag.topics}
    names = {camera.name: camera.name.strip("/").replace("/", "_") for camera in rig.cameras}
    values: dict[str, Any] = {"cameras": list(names.values()) or [""], "lidar_topic": "".join(rig.lidar_topics)}
    for camera in rig.cameras:
        prefix = f"camera.{names[camera.name]}"
        values[f"{prefix}.image_topic"], values[f"{prefix}.info_topic"] = camera.image_topic, camera.info_topic
        values[f"{prefix}.compressed"] = types[camera.image_topic] == COMPRESSED
        # image_proc's name of pictures that it has rectified
        values[f"{prefix}.rectified"] = bool(re.search(r"/image_rect(_\w+)?(/|$)", camera.image_topic))
    topics = {"/tf", "/tf_static"} & types.keys()
    moving: list[Any] = []
    static: list[Any] = []
    for message in bag.messages(topics) if topics else ():
        (moving if message.topic == "/tf" else static).append(message.decode())
    values["fixed_frame"] = fixed_frame(rig, TransformTree(moving, static, str(bag.path)).frames)
    return values


class _NodeStandIn:
    """A node of which only the parameters are asked."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._parameter_overrides = {name: SimpleNamespace(value=value) for name, value in values.items()}

    def declare_parameter(self, *_: Any, **__: Any) -> None:
        """Do nothing: the values are in the overrides."""


def _with_absolute_topics(settings: AssemblerSettings, namespace: str) -> AssemblerSettings:
    def absolute(topic: str) -> str:
        return topic if topic.startswith("/") or not topic else "/".join(("", *filter(None, (namespace,)), topic))

    cameras = tuple(
        replace(camera, image_topic=absolute(camera.image_topic), info_topic=absolute(camera.info_topic))
        for camera in settings.cameras
    )
    further = tuple(replace(lidar, topic=absolute(lidar.topic)) for lidar in settings.further_lidars)
    return replace(settings, cameras=cameras, lidar_topic=absolute(settings.lidar_topic), further_lidars=further)


def _number(value: Any) -> Any:
    """Return a value; ``1e-3`` is a number for ROS 2, but a text for PyYAML."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value
