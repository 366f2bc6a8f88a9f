# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Evaluation in worker processes gives the results of a single process."""

import math
import multiprocessing
import os
import time

import numpy as np
import pytest

from aqr_perception.data.worker_errors import WorkerError
from aqr_perception.detector import Detector
from aqr_perception.evaluation.frame_evaluator import FrameEvaluator
from aqr_perception.evaluation.scenarios import SCENARIOS
from aqr_perception.evaluation.workers import evaluate_frames, in_processes
from aqr_perception.frame import LabelledFrame


@pytest.mark.slow
def test_a_pool_returns_results_in_order() -> None:
    assert list(in_processes(math.factorial, range(8), 2)) == [1, 1, 2, 6, 24, 120, 720, 5040]


@pytest.mark.slow
def test_an_error_in_a_process_ends_the_others_at_once_with_one_line() -> None:
    began = time.monotonic()
    with pytest.raises(WorkerError, match="sleep length must be non-negative"):
        list(in_processes(time.sleep, [-1.0, 60.0, 60.0], 2))
    assert time.monotonic() - began < 20 and not multiprocessing.active_children()


@pytest.mark.slow
def test_an_unexpected_error_in_a_process_is_named_in_one_line() -> None:
    with pytest.raises(WorkerError, match=r"failed with TypeError: .*; run without worker processes") as caught:
        list(in_processes(math.factorial, ["not a number"], 2))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.slow
def test_a_process_that_is_killed_is_named_with_the_remedy() -> None:
    with pytest.raises(WorkerError, match=r"ended unexpectedly.*fewer --workers"):
        list(in_processes(os._exit, [9, 9], 2))


@pytest.mark.slow
def test_several_workers_give_the_results_of_one_in_the_same_order(
    opinionated: Detector, small: LabelledFrame, one_thread: None
) -> None:
    scenarios = {name: SCENARIOS[name] for name in ("clean", "one camera gone")}
    frames = [small, SCENARIOS["LiDAR gone"](small, np.random.default_rng(0)), small]
    evaluator = FrameEvaluator(opinionated, frames, scenarios, ("off", "auto"), seed=0, history=0)
    alone, shared = (list(evaluate_frames(evaluator, workers)) for workers in (1, 2))
    assert len(alone) == len(shared) == len(frames)
    for one, other in zip(alone, shared, strict=True):
        assert one.detections.keys() == other.detections.keys() and one.has_lidar == other.has_lidar
        np.testing.assert_equal(
            [vars(detections) for detections in other.detections.values()],
            [vars(detections) for detections in one.detections.values()],
        )
        np.testing.assert_equal(vars(other.truth), vars(one.truth))
        np.testing.assert_equal(dict(other.broken), dict(one.broken))
    assert [result.has_lidar for result in shared] == [True, False, True]
