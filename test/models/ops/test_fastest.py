"""The fastest way is found by measuring, once."""

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from aqr_perception.models.ops.fastest import Fastest


class Ways:
    """Two ways to double; each says that it was taken, and how long it takes is made up."""

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
def test_the_faster_way_is_taken_from_then_on(faster: str) -> None:
    ways = Ways({"first": 2.0, "second": 2.0} | {faster: 1.0})
    double = Fastest((ways.first, ways.second), ways.measure)
    for _ in range(3):
        assert double("kind", torch.tensor(3.0)) == 6.0
    assert ways.measured == 2 and ways.calls[2:] == [faster] * 3


def test_another_kind_of_problem_is_measured_anew() -> None:
    ways = Ways({"first": 1.0, "second": 2.0})
    double = Fastest((ways.first, ways.second), ways.measure)
    double("small", torch.tensor(1.0))
    ways.seconds["second"] = 0.5
    double("large", torch.tensor(1.0))
    assert ways.calls[-1] == "second"
    double("small", torch.tensor(1.0))
    assert ways.calls[-1] == "first" and ways.measured == 4


def test_a_way_that_fails_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    ways = Ways({"first": 1.0})
    double = Fastest((ways.broken, ways.first), ways.measure)
    with caplog.at_level(logging.WARNING):
        assert double("kind", torch.tensor(3.0)) == 6.0
        assert double("kind", torch.tensor(4.0)) == 8.0
    assert caplog.text.count("broken cannot be used here") == 1 and "no compiler" in caplog.text


def test_where_all_ways_fail_the_error_is_the_last_ones() -> None:
    ways = Ways({})
    with pytest.raises(RuntimeError, match="no compiler"):
        Fastest((ways.broken,), ways.measure)("kind", torch.tensor(1.0))
