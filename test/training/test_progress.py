# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Position of a training in steps, samples and time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqr_perception.training.progress import Progress


@given(st.integers(1, 50), st.integers(1, 9))
def test_a_training_is_finished_after_its_last_step(steps: int, samples_per_step: int) -> None:
    progress = Progress(steps, None, samples_per_step)
    for step in range(steps):
        assert not progress.finished and progress.fraction == step / steps
        progress.advance()
    assert progress.finished and progress.samples == steps * samples_per_step


@given(st.integers(1, 50), st.integers(1, 9), st.integers(0, 50), st.integers(0, 500))
def test_the_progress_of_a_sample_does_not_depend_on_when_it_is_prepared(
    steps: int, samples_per_step: int, done: int, sample: int
) -> None:
    start, later = Progress(steps, None, samples_per_step), Progress(steps, None, samples_per_step)
    for _ in range(done):
        later.advance()
    assert later.fraction_at(later.samples + sample) == start.fraction_at(later.samples + sample)


def test_a_clock_finishes_a_training_of_unknown_steps() -> None:
    progress = Progress(None, 60.0, 2, elapsed=15.0)
    assert progress.fraction == progress.fraction_at(1000) == pytest.approx(0.25)
    progress.elapsed = 61.0
    assert progress.finished and progress.fraction == 1.0
