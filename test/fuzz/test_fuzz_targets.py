# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Any bytes give every target an input that it handles: a plausible result or the documented error."""

import os
import warnings
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")

from fuzz.choices import Choices, random_bytes
from fuzz.targets import TARGETS, load

os.environ["RCUTILS_LOGGING_MIN_SEVERITY"] = "FATAL"  # tf2 reports each wrong transform

# The others have properties of their own in test/nodes/input/test_hostile_messages.py.
EXAMPLES = {"transform": 60, "frame": 25, "parameters": 80, "parameter_file": 60, "preset": 25, "model": 4}
EXAMPLES |= {"checkpoint": 60}
KINDS = sorted(TARGETS.keys() - {"deliberate"})


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"inspection"}))
def test_the_usual_input_of_each_kind_is_accepted(kind: str) -> None:
    assert load(kind)(Choices(b""))


@pytest.mark.parametrize("kind", sorted(EXAMPLES))
def test_any_bytes_give_a_result_or_the_documented_error(kind: str) -> None:
    @settings(max_examples=EXAMPLES[kind], deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.binary(max_size=120))
    def run(data: bytes) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load(kind)(Choices(data)) in (True, False)

    run()


@pytest.mark.parametrize("kind", ["cloud", "image", "compressed", "calibration"])
def test_random_bytes_give_inputs_of_which_some_are_accepted_and_some_refused(kind: str) -> None:
    outcomes = [load(kind)(Choices(random_bytes(0, kind, index))) for index in range(100)]
    assert 10 < sum(outcomes) < 90


@given(st.binary(max_size=60), st.binary(max_size=200))
def test_choices_depend_on_the_bytes_only_and_stay_in_their_ranges(data: bytes, content: bytes) -> None:
    def made(choices: Choices) -> list[object]:
        return [choices.size(7), choices.signed(4), choices.below(9), repr(choices.number()), choices.text()]

    found = made(Choices(data))
    assert found == made(Choices(data))
    size, signed, below, _, text = found
    assert isinstance(size, int) and 0 <= size < 2**32 and isinstance(signed, int) and -(2**31) <= signed < 2**31
    assert isinstance(below, int) and 0 <= below < 9 and "\0" not in str(text)
    assert Choices(b"").spoilt(content) == content


def test_random_bytes_depend_on_seed_kind_and_number() -> None:
    inputs: list[Callable[[], bytes]] = [
        lambda: random_bytes(0, "cloud", 1),
        lambda: random_bytes(1, "cloud", 1),
        lambda: random_bytes(0, "image", 1),
        lambda: random_bytes(0, "cloud", 2),
    ]
    assert [make() for make in inputs] == [make() for make in inputs] and len({make() for make in inputs}) == 4
