# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Legend and caption fit every picture or are left out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.visualization.colours import heat_colours, trust_colours
from aqr_perception.visualization.legend import draw_caption, draw_legend, trust_scale, weight_scale

SCALES = [weight_scale("image: weight of this camera", False), trust_scale("boxes: trust in LiDAR or cameras")]
NOTE = "faint: low score; clear: no query"


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("width", "height"), [(352, 128), (704, 256), (800, 320), (1600, 640), (1600, 900), (800, 800)]
)
def test_pictures_of_all_presets_have_a_legend_that_leaves_most_of_them_free(
    width: int, height: int, signed: bool
) -> None:
    picture = np.full((height, width, 3), 128, np.uint8)
    place = draw_legend(picture, [weight_scale("image: weight of this camera", signed), SCALES[1]], NOTE)
    assert place is not None
    left, top, right, bottom = place
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert (right - left) * (bottom - top) < 0.3 * width * height
    changed = (picture != 128).any(axis=-1)
    assert changed[top:bottom, left:right].mean() > 0.9
    changed[top:bottom, left:right] = False
    assert not changed.any(), "the legend stays in its rectangle"


@pytest.mark.parametrize(("width", "height"), [(100, 56), (100, 800), (1600, 40), (1, 1), (44, 16)])
def test_pictures_that_are_too_small_stay_unchanged(width: int, height: int) -> None:
    picture = np.full((height, width, 3), 128, np.uint8)
    assert draw_legend(picture, SCALES, NOTE) is None and (picture == 128).all()


@given(st.integers(1, 2000), st.integers(1, 1200), st.booleans())
@settings(max_examples=40, deadline=None)
def test_legend_and_caption_are_inside_pictures_of_any_size(width: int, height: int, alarm: bool) -> None:
    picture = np.zeros((height, width, 3), np.uint8)
    places = draw_legend(picture, SCALES, NOTE), draw_caption(picture, "camera front", ["missing: lidar"], alarm)
    for place in places:
        if place is not None:
            assert 0 <= place[0] < place[2] <= width and 0 <= place[1] < place[3] <= height


def test_the_bars_have_the_scales_own_colours_on_any_picture() -> None:
    for ground in (0, 255):
        picture = np.full((600, 600, 3), ground, np.uint8)
        place = draw_legend(picture, SCALES)
        assert place is not None
        pixels = {tuple(pixel) for pixel in picture[place[1] : place[3], place[0] : place[2]].reshape(-1, 3).tolist()}
        for colours in (heat_colours(np.linspace(0, 1, 9)), trust_colours(np.linspace(-1, 1, 9))):
            for end in (colours[0], colours[-1]):
                assert tuple(end.tolist()) in pixels


def test_a_caption_without_room_keeps_its_first_lines() -> None:
    def text_rows(height: int, lines: list[str]) -> int:
        place = draw_caption(np.zeros((height, 400, 3), np.uint8), "camera front", lines)
        return 0 if place is None else place[3] - place[1]

    title, all_lines = text_rows(400, []), text_rows(400, ["missing: lidar", "1.0 s"])
    assert 0 < title < text_rows(120, ["missing: lidar", "1.0 s"]) < all_lines
    assert text_rows(20, []) == 0


def test_missing_sensors_stand_out() -> None:
    pictures = []
    for alarm in (False, True):
        picture = np.zeros((200, 400, 3), np.uint8)
        draw_caption(picture, "camera front", ["missing: lidar"], alarm)
        pictures.append(picture.astype(int))
    calm, loud = (np.abs(picture[..., 2] - picture[..., 0]).max() for picture in pictures)
    assert calm == 0 and loud > 100
