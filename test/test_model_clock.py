# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Wall time of a model's stages."""

import time

import pytest
import torch
from helpers.torch_threads import torch_threads

from aqr_perception.model_clock import ModelClock
from aqr_perception.models.ops.side_by_side import side_by_side


def test_a_stage_that_runs_twice_counts_twice() -> None:
    clock = ModelClock(torch.device("cpu"))
    for _ in range(2):
        with clock.stage("image"):
            time.sleep(0.01)
    assert clock.seconds["image"] >= 0.02


@pytest.mark.parametrize("at_once", [False, True])
def test_the_stages_times_add_up_to_that_of_all(at_once: bool) -> None:
    clock = ModelClock(torch.device("cpu"))
    start = time.perf_counter()
    with torch_threads(2), torch.inference_mode(), side_by_side(at_once):
        assert clock.stages({"points": lambda: time.sleep(0.3), "image": lambda: time.sleep(0.1)}) == [None, None]
    whole = time.perf_counter() - start
    assert list(clock.seconds) == ["points", "image"]
    assert clock.seconds["points"] > 2 * clock.seconds["image"]
    assert sum(clock.seconds.values()) <= whole
    assert (sum(clock.seconds.values()) < 0.39) == at_once
