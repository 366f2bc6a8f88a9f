# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Earlier frames of a drive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqr_perception.data.sources.drives import preceding


def moments(*drives: list[float]) -> list[tuple[int, int]]:
    return [(drive, round(time * 1e9)) for drive, times in enumerate(drives) for time in times]


@pytest.mark.parametrize(
    ("index", "count", "expected"),
    [(0, 2, ()), (1, 2, (0,)), (3, 2, (1, 2)), (3, 9, (0, 1, 2)), (3, 0, ()), (5, 2, (4,))],
)
def test_frames_of_the_drive_come_oldest_first(index: int, count: int, expected: tuple[int, ...]) -> None:
    assert preceding(moments([0.0, 0.5, 1.0, 1.5], [1.0, 1.5]), index, count, 0.5) == expected


def test_a_gap_ends_the_history() -> None:
    assert preceding(moments([0.0, 0.5, 2.0, 2.45]), 3, 3, 0.5) == (2,)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=25), st.integers(1, 5))
def test_each_earlier_frame_is_the_nearest_to_its_time(gaps: list[int], count: int) -> None:
    times = [sum(gaps[:place]) for place in range(len(gaps))]
    last = len(times) - 1
    found = preceding([("drive", time * 1_000_000) for time in times], last, count, 0.5)
    assert list(found) == sorted(set(found)) and len(found) <= count
    for number, place in enumerate(reversed(found), 1):
        wanted = times[last] - 500 * number
        earlier = times[: last if number == 1 else found[len(found) - number + 1]]
        assert abs(times[place] - wanted) == min(abs(time - wanted) for time in earlier) <= 250
