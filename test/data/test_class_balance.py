# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Class-balanced sampling draws every class equally often."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqr_perception.data.class_balance import class_balanced_indices

LABEL_SETS = st.lists(st.frozensets(st.integers(0, 9), max_size=4), min_size=1, max_size=40).filter(any)


def drawn(label_sets: list[frozenset[int]], seed: int = 0) -> list[int]:
    return class_balanced_indices(label_sets, np.random.default_rng(seed)).tolist()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_classes_that_never_share_a_frame_are_drawn_equally_often(labels: list[int]) -> None:
    indices = drawn([frozenset({label}) for label in labels])
    counts = {label: sum(labels[index] == label for index in indices) for label in set(labels)}
    assert set(counts.values()) == {len(labels) // len(counts)}


@given(LABEL_SETS)
def test_every_class_gets_at_least_its_equal_share_of_the_draws(label_sets: list[frozenset[int]]) -> None:
    indices = drawn(label_sets)
    classes = set().union(*label_sets)
    share = sum(map(len, label_sets)) // len(classes)
    assert len(indices) == share * len(classes)
    assert all(sum(label in label_sets[index] for index in indices) >= share for label in classes)


@given(LABEL_SETS)
def test_frames_without_objects_are_never_drawn(label_sets: list[frozenset[int]]) -> None:
    assert all(label_sets[index] for index in drawn(label_sets))


@given(st.integers(1, 20), st.integers(1, 20))
def test_the_frames_of_a_class_are_repeated_evenly(common: int, rare: int) -> None:
    indices = drawn([frozenset({0})] * common + [frozenset({1})] * rare)
    repeats = np.bincount(indices, minlength=common + rare)
    assert np.ptp(repeats[:common]) <= 1
    assert np.ptp(repeats[common:]) <= 1


@given(LABEL_SETS, st.integers(0, 2**32 - 1))
def test_the_same_seed_gives_the_same_order(label_sets: list[frozenset[int]], seed: int) -> None:
    assert drawn(label_sets, seed) == drawn(label_sets, seed)


def test_another_seed_gives_another_order() -> None:
    label_sets = [frozenset({index % 3}) for index in range(30)]
    assert drawn(label_sets, 0) != drawn(label_sets, 1)


def test_a_set_without_any_object_is_refused() -> None:
    with pytest.raises(ValueError, match="2 frames show no object"):
        drawn([frozenset(), frozenset()])
