"""The legend of signed maps fits every picture or is left out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.visualization.colours import heat_colours
from aqr_perception.visualization.legend import draw_signed_legend


@pytest.mark.parametrize(
    ("width", "height"), [(352, 128), (704, 256), (800, 320), (1600, 640), (1600, 900), (800, 800)]
)
def test_pictures_of_all_presets_have_a_legend_that_leaves_most_of_them_free(width: int, height: int) -> None:
    picture = np.full((height, width, 3), 128, np.uint8)
    place = draw_signed_legend(picture)
    assert place is not None
    left, top, right, bottom = place
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert (right - left) * (bottom - top) < 0.2 * width * height
    changed = (picture != 128).any(axis=-1)
    assert changed[top:bottom, left:right].mean() > 0.9
    changed[top:bottom, left:right] = False
    assert not changed.any(), "the legend stays in its rectangle"


@pytest.mark.parametrize(("width", "height"), [(100, 56), (100, 800), (1600, 40), (1, 1), (44, 16)])
def test_pictures_that_are_too_small_stay_unchanged(width: int, height: int) -> None:
    picture = np.full((height, width, 3), 128, np.uint8)
    assert draw_signed_legend(picture) is None and (picture == 128).all()


@given(st.integers(1, 2000), st.integers(1, 1200))
@settings(max_examples=50, deadline=None)
def test_the_legend_is_inside_pictures_of_any_size(width: int, height: int) -> None:
    place = draw_signed_legend(np.zeros((height, width, 3), np.uint8))
    if place is not None:
        assert 0 <= place[0] < place[2] <= width and 0 <= place[1] < place[3] <= height


def test_the_bar_runs_from_the_colour_of_suppressed_to_that_of_trusted() -> None:
    picture = np.zeros((300, 600, 3), np.uint8)
    place = draw_signed_legend(picture)
    assert place is not None
    left, top, right, _ = place
    first_row = picture[top : top + 8, left:right].reshape(8, right - left, 3)
    bar = first_row[(first_row.max(axis=-1) > 200).any(axis=1)][0]
    ends = heat_colours(np.float32([-1.5, 0.0, 1.5]), signed=True)
    coloured = bar.any(axis=-1).nonzero()[0]
    for column, expected in zip((coloured[0], coloured.mean().round().astype(int), coloured[-1]), ends, strict=True):
        assert np.abs(bar[column].astype(int) - expected).max() <= 4
