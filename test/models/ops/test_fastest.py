# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The fastest implementation is measured once for each kind of problem."""

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from aqr_perception.models.ops.fastest import Fastest


class Implementations:
    """Implementations of doubling that record their calls and take a made-up time."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.calls: list[str] = []
        self.seconds, self.measured = seconds, 0

    def first(self, value: Tensor) -> Tensor:
        self.calls.append("first")
        return 2 * value

    def second(self, value: Tensor) -> Tensor:
        self.calls.append("second")
        return value + value

    def broken(self, value: Tensor) -> Tensor:
        raise RuntimeError("no compiler")

    def measure(self, work: Callable[[], Tensor]) -> float:
        work()
        self.measured += 1
        return self.seconds[self.calls[-1]]


@pytest.mark.parametrize("faster", ["first", "second"])
def test_later_calls_use_the_faster_implementation(faster: str) -> None:
    implementations = Implementations({"first": 2.0, "second": 2.0} | {faster: 1.0})
    double = Fastest((implementations.first, implementations.second), implementations.measure)
    for _ in range(3):
        assert double("kind", torch.tensor(3.0)) == 6.0
    assert implementations.measured == 2 and implementations.calls[2:] == [faster] * 3


def test_another_kind_of_problem_is_measured_again() -> None:
    implementations = Implementations({"first": 1.0, "second": 2.0})
    double = Fastest((implementations.first, implementations.second), implementations.measure)
    double("small", torch.tensor(1.0))
    implementations.seconds["second"] = 0.5
    double("large", torch.tensor(1.0))
    assert implementations.calls[-1] == "second"
    double("small", torch.tensor(1.0))
    assert implementations.calls[-1] == "first" and implementations.measured == 4


def test_a_failing_implementation_is_skipped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    implementations = Implementations({"first": 1.0})
    double = Fastest((implementations.broken, implementations.first), implementations.measure)
    with caplog.at_level(logging.WARNING):
        assert double("kind", torch.tensor(3.0)) == 6.0
        assert double("kind", torch.tensor(4.0)) == 8.0
    assert caplog.text.count("broken cannot be used here") == 1 and "no compiler" in caplog.text


def test_the_last_error_is_raised_if_all_implementations_fail() -> None:
    implementations = Implementations({})
    with pytest.raises(RuntimeError, match="no compiler"):
        Fastest((implementations.broken,), implementations.measure)("kind", torch.tensor(1.0))
