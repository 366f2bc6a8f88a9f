# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Values that users give parameters are taken where their meaning is clear, and named otherwise."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")

from aqr_perception.nodes.parameters.declaration import Overrides, Parameter, nearest
from aqr_perception.options import OptionError

FLAG = Parameter("flag", True, "")
COUNT = Parameter("count", 3, "", 1, 10)
SECONDS = Parameter("seconds", 0.5, "", 0.0, 10.0)
TEXT = Parameter("text", "", "")
MODE = Parameter("mode", "auto", "", choices=("auto", "off", "both"))
NAMES = Parameter("names", ["a"], "")


@pytest.mark.parametrize(
    ("parameter", "given", "taken"),
    [
        (SECONDS, 1, 1.0),
        (COUNT, 2.0, 2),
        (MODE, False, "off"),  # YAML's off
        (NAMES, None, [""]),  # YAML's [], which has no type in ROS 2
        (NAMES, [], [""]),
        (NAMES, "b", ["b"]),
        (NAMES, ["b", "c"], ["b", "c"]),
        (FLAG, False, False),
        (TEXT, "5", "5"),
    ],
)
def test_a_value_whose_meaning_is_clear_is_taken(parameter: Parameter, given: Any, taken: Any) -> None:
    accepted = parameter.accept(given)
    assert accepted == taken and type(accepted) is type(taken)


@pytest.mark.parametrize(
    ("parameter", "given", "needed"),
    [
        (SECONDS, "1", "a number"),
        (SECONDS, True, "a number"),
        (SECONDS, -1, r"in 0\.\.10"),
        (SECONDS, 10.5, r"in 0\.\.10"),
        (SECONDS, math.nan, r"in 0\.\.10"),
        (SECONDS, math.inf, r"in 0\.\.10"),
        (SECONDS, [0.5], "a number"),
        (SECONDS, None, "a number"),
        (COUNT, 2.5, "an integer"),
        (COUNT, True, "an integer"),
        (COUNT, 11, r"in 1\.\.10"),
        (COUNT, math.inf, "an integer"),
        (FLAG, 1, "true or false"),
        (FLAG, "true", "true or false"),
        (TEXT, 5, "a text"),
        (TEXT, True, "a text"),
        (TEXT, None, "a text"),
        (MODE, "loud", "one of auto, off, both"),
        (MODE, True, "a text"),
        (NAMES, [1, 2], "a list of texts"),
        (NAMES, b"ab", "a list of texts"),
        (NAMES, 5, "a list of texts"),
    ],
)
def test_any_other_value_is_refused_with_its_name_and_what_is_needed(
    parameter: Parameter, given: Any, needed: str
) -> None:
    with pytest.raises(OptionError, match=f"{parameter.name} is .* but must be {needed}"):
        parameter.accept(given)


def test_every_wrong_value_of_a_start_is_noted_and_its_default_stands_in() -> None:
    given = {
        "seconds": SimpleNamespace(value="x"),
        "count": SimpleNamespace(value=99),
        "text": SimpleNamespace(value="t"),
    }
    overrides = Overrides(SimpleNamespace(_parameter_overrides=given))
    assert [overrides.value(parameter) for parameter in (SECONDS, COUNT, TEXT, FLAG)] == [0.5, 3, "t", True]
    assert set(overrides.problems) == {"seconds", "count"}


def test_names_without_a_parameter_are_found_but_not_those_of_rclpy() -> None:
    names = ("text", "txet", "use_sim_time", "qos_overrides./tf.subscription.depth", "start_type_description_service")
    overrides = Overrides(SimpleNamespace(_parameter_overrides={name: SimpleNamespace(value=1) for name in names}))
    assert overrides.unknown({"text": ""}) == ["txet"]
    assert nearest("txet", ["text", "seconds"]) == "; did you mean text?"
    assert nearest("something else", ["text", "seconds"]) == ""
