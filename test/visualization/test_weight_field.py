# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fields show the queries' weights where they are, as visibly as their scores."""

import cv2
import numpy as np
import pytest

from aqr_perception.frame import QueryEvidence
from aqr_perception.visualization.weight_field import blend, from_map, from_queries, known_weights

SIZE = (160, 120)


def queries(scores: list[float], weights: list[float]) -> QueryEvidence:
    count = len(scores)
    values = np.array(weights, np.float32)
    return QueryEvidence(np.zeros((count, 3), np.float32), np.array(scores, np.float32), values, values, values, (1, 1))


def field_of(scores: list[float], weights: list[float], places: list[tuple[float, float]]):  # type: ignore[no-untyped-def]
    found = queries(scores, weights)
    return from_queries(found, found.weights, np.array(places, float), (8.0, 8.0), SIZE, 4)


def test_a_query_shows_its_weight_around_it_and_nothing_elsewhere() -> None:
    field = field_of([0.9], [0.25], [(40.0, 60.0)])
    assert field.values.shape == (30, 40)
    assert field.visibility[15, 10] > 0.95 and field.values[15, 10] == pytest.approx(0.25)
    assert field.visibility[:, 25:].max() == 0 and field.visibility[0].max() == 0


def test_visibility_rises_with_the_score_and_not_with_the_weight() -> None:
    peaks = [
        field_of([score], [weight], [(40, 60)]).visibility.max() for score, weight in ((0.1, 1), (0.3, 1), (0.3, 0.1))
    ]
    assert peaks[0] < 0.4 * peaks[1] and peaks[1] == pytest.approx(peaks[2])


def test_the_query_with_the_higher_score_decides_where_two_overlap() -> None:
    field = field_of([0.5, 0.1], [0.9, 0.1], [(40, 60), (42, 60)])
    assert field.values[15, 10] > 0.88
    many = field_of([0.2] * 20, [0.9] * 20, [(40, 60)] * 20)
    assert many.visibility.max() < 0.9, "many weak queries are no strong one"


def test_weights_of_opposite_sign_give_opposite_fields() -> None:
    places = [(40.0, 60.0), (60.0, 50.0)]
    one, other = field_of([0.5, 0.4], [0.7, -0.3], places), field_of([0.5, 0.4], [-0.7, 0.3], places)
    np.testing.assert_allclose(one.values, -other.values, atol=1e-6)
    np.testing.assert_array_equal(one.visibility, other.visibility)


def test_queries_without_a_weight_are_not_drawn() -> None:
    found = queries([0.9, 0.9], [0.0, 0.5])
    values = known_weights(found)
    field = from_queries(found, values, np.array([(40.0, 60.0), (120.0, 60.0)]), (8.0, 8.0), SIZE, 4)
    assert field.visibility[:, :20].max() < 0.05 and field.visibility[15, 30] > 0.9
    nothing = field_of([], [], np.zeros((0, 2)))  # type: ignore[arg-type]
    assert not nothing.visibility.any() and not nothing.values.any()


def test_zero_in_a_map_is_no_evidence() -> None:
    field = from_map(np.float32([[0.0, 0.1, -0.1, 1.5, np.nan]]), signed=True)
    assert field.visibility[0, 0] == field.visibility[0, 4] == 0
    assert 0 < field.visibility[0, 1] == field.visibility[0, 2] < field.visibility[0, 3] == 1
    assert from_map(np.float32([[-0.1]]), signed=False).visibility == 0


@pytest.mark.parametrize("size", [(301, 160), (2000, 40), (7, 5)])
def test_blending_in_bands_has_no_seams_and_leaves_the_rest_unchanged(size: tuple[int, int]) -> None:
    random, step = np.random.default_rng(0), 8
    height, width = size
    cells = (-(-height // step), -(-width // step))
    picture = random.integers(0, 255, (height, width, 3), dtype=np.uint8)
    colours = random.integers(0, 255, (*cells, 3), dtype=np.uint8)
    opacity = random.uniform(0, 1, cells).astype(np.float32)
    opacity[cells[0] // 2 :, : cells[1] // 3] = 0
    ours, rest = colours * opacity[..., None], np.repeat(255 * (1 - opacity[..., None]), 3, axis=2)
    large = [
        cv2.resize(image.astype(np.float32), (cells[1] * step, cells[0] * step))[:height, :width]
        for image in (ours, rest)
    ]
    expected = picture * (large[1] / 255) + large[0]
    clear = large[1] == 255
    before = picture.copy()
    blend(picture, colours, opacity, step)
    assert np.abs(picture - expected).max() <= 2.5
    np.testing.assert_array_equal(picture[clear], before[clear])
