# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The sweeps of a cloud: at the model's interval, whatever the LiDAR's rate."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqr_perception.sweep_choice import spaced_sweeps


def stamps(rate: float, count: int = 30) -> list[int]:
    return [round(1e12 - 1e9 * index / rate) for index in range(count)]


@given(rate=st.floats(5.0, 40.0), count=st.integers(1, 10))
def test_without_an_interval_the_newest_sweeps_are_chosen(rate: float, count: int) -> None:
    assert spaced_sweeps(stamps(rate), count) == list(range(count))


@pytest.mark.parametrize(("rate", "ages"), [(5.0, 0.4), (10.0, 0.4), (12.0, 0.417), (20.0, 0.4), (7.0, 0.429)])
def test_a_model_of_two_sweeps_0_4_s_apart_gets_them_at_all_rates(rate: float, ages: float) -> None:
    all_stamps = stamps(rate)
    newest, past = spaced_sweeps(all_stamps, 2, 0.4)
    assert newest == 0
    assert (all_stamps[0] - all_stamps[past]) / 1e9 == pytest.approx(ages, abs=1e-3)


@given(
    steps=st.lists(st.integers(1, 300_000_000), max_size=40),
    count=st.integers(1, 10),
    interval=st.floats(0.0, 1.0),
    gap=st.floats(0.05, 0.5),
)
def test_chosen_sweeps_are_apart_and_no_gap_lies_between_them(
    steps: list[int], count: int, interval: float, gap: float
) -> None:
    all_stamps = [10**12]
    for step in steps:
        all_stamps.append(all_stamps[-1] - step)
    chosen = spaced_sweeps(all_stamps, count, interval, gap)
    assert chosen[0] == 0
    assert len(chosen) <= count
    for newer, older in itertools.pairwise(chosen):
        assert all_stamps[newer] - all_stamps[older] >= 0.9 * interval * 1e9
    steps_between = [all_stamps[index] - all_stamps[index + 1] for index in range(chosen[-1])]
    assert max(steps_between, default=0) <= gap * 1e9


def test_no_sweep_gives_none() -> None:
    assert spaced_sweeps([], 3) == []
