# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Learning rate schedules."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqr_perception.training.schedule import learning_rate_factor
from aqr_perception.training.training_options import Schedule

schedules = st.sampled_from(get_args(Schedule))
shares = st.floats(0, 1)


@given(schedules, shares, shares)
def test_the_rate_rises_during_the_warm_up_and_never_after(schedule: Schedule, warmup: float, progress: float) -> None:
    now, soon = (learning_rate_factor(p, schedule, warmup) for p in (progress, progress + 1e-3))
    assert 0 < now <= 1
    if progress + 1e-3 <= warmup:
        assert soon >= now
    if progress >= warmup:
        assert soon <= now


@given(schedules, st.floats(0.05, 0.95))
def test_the_peak_is_at_the_end_of_the_warm_up(schedule: Schedule, warmup: float) -> None:
    assert learning_rate_factor(warmup, schedule, warmup) == 1.0


def test_one_cycle_equals_cmts_schedule() -> None:
    factors = [learning_rate_factor(progress, "one_cycle") for progress in (0.0, 0.2, 0.4, 0.7, 1.0)]
    assert factors == pytest.approx([1 / 6, 7 / 12, 1.0, (1 + 1e-4 / 6) / 2, 1e-4 / 6])


@given(schedules, st.floats(1, 5))
def test_the_rate_stays_at_its_last_value_after_the_end(schedule: Schedule, progress: float) -> None:
    assert learning_rate_factor(progress, schedule) == learning_rate_factor(1.0, schedule)
