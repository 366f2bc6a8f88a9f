"""Frames shared among processes: nothing but the time changes."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from aqr_perception.detector import Detector
from aqr_perception.evaluation.examination import Examination
from aqr_perception.evaluation.scenarios import SCENARIOS
from aqr_perception.evaluation.workers import each_answers, each_result
from aqr_perception.frame import LabelledFrame


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_in_which_they_were_asked_for(workers: int) -> None:
    assert list(each_result(math.factorial, iter(range(8)), workers)) == [1, 1, 2, 6, 24, 120, 720, 5040]


@pytest.mark.slow
def test_several_processes_give_the_answers_of_one_in_the_same_order(
    opinionated: Detector, small: LabelledFrame, one_thread: None
) -> None:
    scenarios = {name: SCENARIOS[name] for name in ("clean", "one camera gone")}
    frames = [small, SCENARIOS["LiDAR gone"](small, np.random.default_rng(0)), small]
    examination = Examination(opinionated, frames, scenarios, ("off", "auto"), seed=0, history=0)
    alone, shared = (list(each_answers(examination, workers)) for workers in (1, 2))
    assert len(alone) == len(shared) == len(frames)
    for one, other in zip(alone, shared, strict=True):
        assert one.found.keys() == other.found.keys() and one.has_lidar == other.has_lidar
        np.testing.assert_equal(
            [vars(found) for found in other.found.values()], [vars(found) for found in one.found.values()]
        )
        np.testing.assert_equal(vars(other.truth), vars(one.truth))
        np.testing.assert_array_equal(other.blackout, one.blackout)
    assert [answers.has_lidar for answers in shared] == [True, False, True]
