# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Declaration of the node's parameters with the values that users give them, and names that are no parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from aqr_perception.frame import CLASSES
from aqr_perception.nodes.input.frame_request import LIDAR
from aqr_perception.nodes.parameters.declaration import Overrides, Parameter, nearest
from aqr_perception.nodes.parameters.parameter_table import (
    LIDAR_TOPIC,
    LIDAR_TOPICS,
    PARAMETERS,
    THRESHOLDS,
    camera_names,
    class_parameters,
    parameters_of_cameras,
    parameters_of_lidars,
    several_topics,
)
from aqr_perception.nodes.parameters.value_checks import check_directories


def declare(node: Node, overrides: Overrides | None = None) -> dict[str, Any]:
    """Declare every parameter on a node and return their values.

    Classes are those of `model.preset`.

    Args:
        overrides: the user's values; those that cannot be used are noted there, and the defaults are declared.
    """
    given = Overrides(node) if overrides is None else overrides
    values = {parameter.name: given.declare(node, parameter) for parameter in _for_given_lidars(given)}
    for parameter in (*parameters_of_lidars(values), *parameters_of_cameras(values)):
        values[parameter.name] = given.declare(node, parameter)
    declare_classes(node, _start_classes(values), values, given)
    return values


def _for_given_lidars(given: Overrides) -> list[Parameter]:
    """Return `PARAMETERS`, where the default of `lidar_topic` does not contradict a given `lidar_topics`."""
    by_name = {parameter.name: parameter for parameter in PARAMETERS}
    if any(given.value(by_name[LIDAR_TOPICS])) and not given.is_given(LIDAR_TOPIC):
        by_name[LIDAR_TOPIC] = replace(by_name[LIDAR_TOPIC], default="")
    return list(by_name.values())


def _start_classes(values: Mapping[str, Any]) -> tuple[str, ...]:
    from aqr_perception.detector import preset_classes  # imports PyTorch, which takes seconds

    try:
        check_directories(values)
        return preset_classes(values["model.preset"])
    except (ValueError, OSError):  # the node reports an invalid preset when it is configured
        return CLASSES


def declare_classes(node: Node, classes: Sequence[str], values: dict[str, Any], overrides: Overrides) -> None:
    """Declare the score thresholds of a model's classes that are not in `values` yet, and add their values."""
    new = [parameter for parameter in class_parameters(classes) if parameter.name not in values]
    values |= {parameter.name: overrides.declare(node, parameter) for parameter in new}


def ignored(overrides: Overrides, values: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each value that the user gave a name that is not a parameter."""
    return [_ignored(name, values) for name in overrides.unknown(values)]


def _ignored(name: str, values: Mapping[str, Any]) -> str:
    kind, _, rest = name.partition(".")
    camera = number = rest.partition(".")[0]
    if f"{kind}." == THRESHOLDS:
        similar = nearest(name, values)
        return f"{name} has no effect: model.preset {values['model.preset']} has no class {rest}{similar}"
    count = len(several_topics(values))
    if kind == LIDAR and number.isdecimal() and not 1 <= int(number) <= count:
        return f"{name} has no effect: lidar_topics has {count} topics, the first of which is lidar.1"
    if kind == "camera" and camera not in values["cameras"]:
        return f"{name} has no effect: cameras has no {camera!r}{nearest(camera, camera_names(values))}"
    return f"{name} is not a parameter of this node and has no effect{nearest(name, values)}"


def converted(changes: Sequence[RosParameter]) -> list[RosParameter]:
    """Return changes of parameters in the parameters' types, where their meaning is clear."""
    return [_converted(change) for change in changes]


def _converted(change: RosParameter) -> RosParameter:
    for parameter in PARAMETERS:
        if change.name == parameter.name and change.value is not None:
            return RosParameter(change.name, value=parameter.converted(change.value))
    if change.name.startswith(THRESHOLDS) and type(change.value) is int:
        return RosParameter(change.name, value=float(change.value))
    return change
