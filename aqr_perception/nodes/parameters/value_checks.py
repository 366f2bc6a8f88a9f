# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Checks of the parameters' values, each by itself and together."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rclpy.exceptions import InvalidTopicNameException
from rclpy.expand_topic_name import expand_topic_name
from rclpy.validate_full_topic_name import validate_full_topic_name
from rclpy.validate_topic_name import validate_topic_name

from aqr_perception.models.weights.shipped import RANDOM
from aqr_perception.nodes.input.frame_request import LIDAR, lidar_name
from aqr_perception.nodes.parameters.parameter_table import (
    LIDAR_TOPIC,
    LIDAR_TOPICS,
    PARAMETERS,
    THRESHOLDS,
    camera_names,
    class_parameters,
    lidar_topics,
    parameters_of_cameras,
    parameters_of_lidars,
    several_topics,
)
from aqr_perception.options import OptionError

_RESERVED = ("bev", LIDAR)
"""Names in ~/weights/ and in the detections that are no cameras'."""


def check(values: Mapping[str, Any]) -> None:
    """Check the values of all parameters, each by itself and together.

    Raises:
        OptionError: a value or a combination of values is invalid; the text names the parameter and the value needed.
    """
    _check_lidars(values)
    _check_cameras(values)
    _check_each(values)
    _check_topics(values)
    check_directories(values)


def _check_each(values: Mapping[str, Any]) -> None:
    classes = [name.removeprefix(THRESHOLDS) for name in values if name.startswith(THRESHOLDS)]
    sensors = (*parameters_of_cameras(values), *parameters_of_lidars(values))
    for parameter in (*PARAMETERS, *class_parameters(classes), *sensors):
        parameter.check(values[parameter.name])


def _check_lidars(values: Mapping[str, Any]) -> None:
    one, several = values[LIDAR_TOPIC], several_topics(values)
    if several and one:
        found = f"{LIDAR_TOPIC} is {one!r} and {LIDAR_TOPICS} is {several}"
        raise OptionError(f"{found}, but only one of them may be set; leave {LIDAR_TOPIC} out or set it to ''")
    if "" in several:
        empty = several.index("") + 1
        raise OptionError(f"{LIDAR_TOPICS} is {several}, but must have no empty text; topic {empty} is empty")


def _check_cameras(values: Mapping[str, Any]) -> None:
    lidars = [lidar_name(number) for number, _ in enumerate(lidar_topics(values), start=1)]
    for name in camera_names(values):
        if name in lidars:
            raise OptionError(f"cameras has {name!r}, but a LiDAR has this name; choose another name")
        if name in _RESERVED:
            raise OptionError(f"cameras has {name!r}, but the node has topics of this name; choose another name")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            needed = "letters, digits and underscores, with a letter first, because topics contain the names"
            raise OptionError(f"cameras has {name!r}, but names must be {needed}")


def _check_topics(values: Mapping[str, Any]) -> None:
    cameras = dict.fromkeys(camera_names(values))
    images = {f"camera.{camera}.image_topic": values[f"camera.{camera}.image_topic"] for camera in cameras}
    infos = {f"camera.{camera}.info_topic": values[f"camera.{camera}.info_topic"] for camera in cameras}
    lidars = lidar_topics(values)
    for name, topic in (images | infos | lidars).items():
        try:
            validate_topic_name(topic)
            validate_full_topic_name(expand_topic_name(topic, "aqr_perception", "/"))
        except InvalidTopicNameException as error:
            reason = str(error).partition(":")[2].split("\n")[0].strip()
            raise OptionError(f"{name} is {topic!r}, but must be a topic: {reason}") from error
    owners: dict[str, str] = {}
    for name, topic in (images | lidars).items():
        if topic in owners:
            raise OptionError(f"{owners[topic]} and {name} are both {topic!r}, but each sensor needs its own topic")
        owners[topic] = name


def check_directories(values: Mapping[str, Any]) -> None:
    """Check that the model's files lie in the allowed folders, links followed."""
    folders = [folder for folder in values["model.directories"] if folder]
    if not folders:
        return
    preset, checkpoint = values["model.preset"], values["model.checkpoint"]
    files = {"model.preset": preset} if preset.endswith(".yaml") else {}
    if checkpoint not in ("", RANDOM):
        files["model.checkpoint"] = checkpoint
    for name, file in files.items():
        if not any(Path(file).resolve().is_relative_to(Path(folder).resolve()) for folder in folders):
            raise OptionError(f"{name} is {file!r}, but must lie in one of model.directories: {', '.join(folders)}")
