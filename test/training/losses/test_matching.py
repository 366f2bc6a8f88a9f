# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Matching of queries to objects: one to one, at the least cost, also with values that are not finite."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aqr_perception.models.boxes.coder import encode
from aqr_perception.models.model_io import Predictions
from aqr_perception.training.losses.matching import match, pair_costs


def objects(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return boxes (N, 9) and labels (N,)."""
    boxes = torch.randn(count, 9, generator=generator) * 10
    boxes[:, 3:6] = boxes[:, 3:6].abs() + 0.2
    return boxes, torch.randint(0, 10, (count,), generator=generator)


def scene(counts: list[int], queries: int, layers: int, seed: int) -> tuple[Predictions, list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    boxes, labels = zip(*(objects(count, generator) for count in counts), strict=True)
    shape = (layers, len(counts), queries)
    predictions = Predictions(
        torch.randn(*shape, 10, generator=generator), torch.randn(*shape, 10, generator=generator) * 3
    )
    return predictions, list(boxes), list(labels)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=3), st.integers(1, 8), st.integers(1, 3), st.integers(0, 99))
def test_matches_are_one_to_one_in_every_layer_and_as_many_as_possible(counts, queries, layers, seed) -> None:
    matches = match(*scene(counts, queries, layers, seed))
    first = 0
    for sample, count in enumerate(counts):
        for layer in range(layers):
            here = (matches.layer == layer) & (matches.sample == sample)
            query, target = matches.query[here], matches.target[here] - first
            assert len(query) == len(query.unique()) == len(target.unique()) == min(count, queries)
            assert all(0 <= index < queries for index in query) and all(0 <= index < count for index in target)
        first += count
    assert len(matches.query) == layers * sum(min(count, queries) for count in counts)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 99))
def test_no_other_assignment_is_cheaper(seed: int) -> None:
    predictions, (boxes,), (labels,) = scene([3], 4, 1, seed)
    cost = pair_costs(predictions.class_logits[:, 0], predictions.boxes[:, 0], boxes, labels)[0]
    matches = match(predictions, [boxes], [labels])
    cheapest = min(sum(cost[q, n] for n, q in enumerate(order)) for order in itertools.permutations(range(4), 3))
    torch.testing.assert_close(cost[matches.query, matches.target].sum(), cheapest)


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(6)), st.integers(0, 99))
def test_predictions_equal_to_the_objects_are_matched_to_them(order: list[int], seed: int) -> None:
    boxes, labels = objects(6, torch.Generator().manual_seed(seed))
    logits = torch.full((1, 1, 6, 10), -4.0)
    logits[0, 0, torch.arange(6), labels[order]] = 4.0
    matches = match(Predictions(logits, encode(boxes[order])[None, None]), [boxes], [labels])
    assert [order[query] for query in matches.query] == matches.target.tolist()


def test_of_two_queries_at_one_place_the_one_with_the_right_class_is_matched() -> None:
    boxes, labels = objects(1, torch.Generator().manual_seed(0))
    logits = torch.zeros(1, 1, 2, 10)
    logits[0, 0, 1, labels] = 3.0
    codes = encode(boxes).expand(1, 1, 2, 10)
    assert match(Predictions(logits, codes), [boxes], [labels]).query.tolist() == [1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_queries_with_values_that_are_not_finite_are_matched_last(bad: float) -> None:
    predictions, boxes, labels = scene([3], 6, 2, 1)
    predictions.boxes[:, :, :2] = bad
    predictions.class_logits[:, :, 2] = float("nan")
    matches = match(predictions, boxes, labels)
    assert sorted(matches.query.tolist()) == [3, 3, 4, 4, 5, 5]
    predictions.boxes[:] = bad
    assert len(match(predictions, boxes, labels).query) == 2 * 3


def test_an_unknown_velocity_does_not_count() -> None:
    boxes, labels = objects(1, torch.Generator().manual_seed(0))
    codes = encode(boxes).repeat(2, 1)
    codes[1, 8:] = 100.0
    boxes[:, 7:] = float("nan")
    cost = pair_costs(torch.zeros(1, 2, 10), codes[None], boxes, labels)[0]
    assert cost[0] == cost[1] and cost[0] < 10


def test_a_batch_without_objects_has_no_matches() -> None:
    matches = match(*scene([0, 0], 5, 2, 0))
    assert all(indices.shape == (0,) and indices.dtype == torch.int64 for indices in matches)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_matches_are_the_same_on_cuda() -> None:
    predictions, boxes, labels = scene([3, 0, 5], 9, 2, 4)
    moved = Predictions(*(values.cuda() for values in predictions))
    cuda = match(moved, [box.cuda() for box in boxes], [label.cuda() for label in labels])
    for here, there in zip(match(predictions, boxes, labels), cuda, strict=True):
        assert there.is_cuda and torch.equal(here, there.cpu())
