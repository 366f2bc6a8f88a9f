"""Evaluation in worker processes gives the results of a single process."""

import math

import numpy as np
import pytest

from aqr_perception.detector import Detector
from aqr_perception.evaluation.frame_evaluator import FrameEvaluator
from aqr_perception.evaluation.scenarios import SCENARIOS
from aqr_perception.evaluation.workers import evaluate_frames, process_pool
from aqr_perception.frame import LabelledFrame


def test_a_pool_returns_results_in_order() -> None:
    with process_pool(2) as pool:
        assert list(pool.map(math.factorial, range(8))) == [1, 1, 2, 6, 24, 120, 720, 5040]


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
        np.testing.assert_array_equal(other.blackout, one.blackout)
    assert [result.has_lidar for result in shared] == [True, False, True]
