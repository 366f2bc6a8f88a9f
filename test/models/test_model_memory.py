# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The memory that `Detector` and training share."""

import pytest
import torch

from aqr_perception.models.model_memory import ModelMemory, Moment


def moment(seconds: float, *x: float) -> Moment:
    """Return a moment of one sample per position along the fixed frame's x."""
    to_fixed = torch.eye(4, dtype=torch.float64).repeat(len(x), 1, 1)
    to_fixed[:, 0, 3] = torch.tensor(x, dtype=torch.float64)
    return Moment(torch.full((len(x),), 10**18 + round(seconds * 1e9)), to_fixed)


def test_each_sample_gets_its_own_motion() -> None:
    memory = ModelMemory()
    memory.update(moment(0.0, 100.0, 0.0), "state")
    history = memory.history(moment(0.5, 103.0, -1.0))
    assert history is not None and history.state == "state" and history.seconds == pytest.approx(0.5)
    assert history.to_current[:, 0, 3].tolist() == [-3.0, 1.0] and history.to_fixed[:, 0, 3].tolist() == [103.0, -1.0]


@pytest.mark.parametrize(("seconds", "kept"), [(0.4, True), (0.6, False), (0.0, False), (-0.1, False)])
def test_a_jump_of_time_clears_the_memory(seconds: float, kept: bool) -> None:
    memory = ModelMemory()
    memory.update(moment(0.0, 0.0), "state")
    history = memory.history(moment(seconds, 1.0), max_gap=0.5)
    assert history is not None and (history.state is not None) == (memory.state is not None) == kept
    if not kept:
        assert torch.equal(history.to_current, torch.eye(4)) and history.seconds == 0.0


def test_without_motion_or_state_nothing_is_remembered() -> None:
    memory = ModelMemory()
    assert memory.history(None) is None
    for now, state in ((None, "state"), (moment(0.1, 0.0), None)):
        memory.update(moment(0.0, 0.0), "state")
        memory.update(now, state)
        assert memory.state is None
