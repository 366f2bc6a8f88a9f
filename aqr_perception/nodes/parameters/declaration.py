# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Declaration of a parameter, and the values that users give parameters when the node starts."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from aqr_perception.options import OptionError

_RCLPY = ("use_sim_time", "start_type_description_service")
_QOS = "qos_overrides."
_KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text", list: "a list of texts"}


@dataclass(frozen=True)
class Parameter:
    """Declaration of one parameter.

    Attributes:
        low, high: inclusive range of a number.
        choices: allowed values; empty: any value.
        run_time: whether the parameter may change while the node runs; the others are fixed when the node starts.
    """

    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    run_time: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """Return the descriptor that `ros2 param describe` shows."""
        described = ParameterDescriptor(name=self.name, description=self.description, read_only=not self.run_time)
        if self.choices:
            described.additional_constraints = f"one of {', '.join(self.choices)}"
        if self.low is not None and self.high is not None:
            if isinstance(self.default, int):
                described.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high), step=1)]
            else:
                described.floating_point_range = [FloatingPointRange(from_value=self.low, to_value=self.high)]
        return described

    def accept(self, value: Any) -> Any:
        """Return a value in the parameter's type.

        Values of another type are taken where their meaning is clear: see `converted`.

        Raises:
            OptionError: the value has a wrong type or is not allowed.
        """
        accepted = self.converted(value)
        if type(accepted) is not type(self.default) or not _holds_texts(accepted):
            raise OptionError(f"{self.name} is {value!r}, but must be {_KINDS[type(self.default)]}")
        self.check(accepted)
        return accepted

    def check(self, value: Any) -> None:
        """Check that a value of the parameter's type is allowed; rclpy takes NaN for a number in any range.

        Raises:
            OptionError: it is not.
        """
        if self.choices and value not in self.choices:
            raise OptionError(f"{self.name} is {value!r}, but must be one of {', '.join(self.choices)}")
        if self.low is not None and self.high is not None and not self.low <= value <= self.high:
            raise OptionError(f"{self.name} is {value!r}, but must be in {self.low:g}..{self.high:g}")

    def converted(self, value: Any) -> Any:
        """Return a value in the parameter's type where its meaning is clear, or else unchanged.

        An integer is taken for a double, a whole double for an integer, one text for a list of texts, an empty list,
        which has no type in ROS 2, for no texts, and YAML's truth values `off` and `on` for the texts.
        """
        if isinstance(self.default, list):
            if not (value is None or isinstance(value, Sequence)):
                return value
            texts = [value] if isinstance(value, str) else list(value or ())
            # ROS 2 cannot tell an empty list of texts from one of bytes: a single empty text stands for it.
            return texts or [""]
        if isinstance(value, bool):
            word = "on" if value else "off"
            return word if word in self.choices else value
        if isinstance(self.default, float) and isinstance(value, int):
            return float(value)
        if type(self.default) is int and isinstance(value, float) and value.is_integer():
            return int(value)
        return value


def _holds_texts(value: Any) -> bool:
    return not isinstance(value, list) or all(isinstance(item, str) for item in value)


class Overrides:
    """The values that a user gave a node's parameters by parameter files and arguments.

    Attributes:
        problems: why a given value cannot be used, by the parameter's name.
    """

    def __init__(self, node: Node) -> None:
        # rclpy has no public access to them, ignores those without a declaration, and raises at the first wrong type.
        self._given = {name: parameter.value for name, parameter in node._parameter_overrides.items()}
        self.problems: dict[str, str] = {}

    def value(self, parameter: Parameter) -> Any:
        """Return the given value of a parameter, or its default; a value that cannot be used is noted as a problem."""
        if parameter.name not in self._given:
            return parameter.default
        try:
            return parameter.accept(self._given[parameter.name])
        except OptionError as error:
            self.problems[parameter.name] = str(error)
            return parameter.default

    def is_given(self, name: str) -> bool:
        """Return whether the user gave a parameter a value."""
        return name in self._given

    def declare(self, node: Node, parameter: Parameter) -> Any:
        """Declare a parameter with its given or default value, and return this value."""
        value = self.value(parameter)
        node.declare_parameter(parameter.name, value, parameter.descriptor(), ignore_override=True)
        return value

    def unknown(self, known: Collection[str]) -> list[str]:
        """Return the given names that are not parameters of the node."""
        return sorted(name for name in self._given if name not in (*known, *_RCLPY) and not name.startswith(_QOS))


def nearest(name: str, known: Collection[str]) -> str:
    """Return a question that names the known name most similar to an unknown one; empty if none is similar."""
    similar = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {similar[0]}?" if similar else ""
