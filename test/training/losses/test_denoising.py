# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Denoising queries: their places, targets and attention mask."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aqr_perception.training.losses.denoising import BACKGROUND, denoising_queries

RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
LOWER, UPPER = torch.tensor(RANGE[:3]), torch.tensor(RANGE[3:])


def objects(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return boxes (N, 9) well inside the range, and labels (N,)."""
    centre = (torch.rand(count, 3, generator=generator) - 0.5) * torch.tensor([60.0, 60.0, 1.0])
    size = torch.rand(count, 3, generator=generator) * torch.tensor([10.0, 2.5, 2.0]) + 0.3
    rest = (torch.rand(count, 3, generator=generator) - 0.5) * torch.tensor([2 * math.pi, 20.0, 20.0])
    return torch.cat((centre, size, rest), dim=1), torch.randint(0, 10, (count,), generator=generator)


def batch(counts: list[int], seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    boxes, labels = zip(*(objects(count, generator) for count in counts), strict=True)
    return list(boxes), list(labels)


counts = st.lists(st.integers(0, 7), min_size=1, max_size=3)


@settings(deadline=None, max_examples=40)
@given(counts, st.integers(1, 4), st.integers(1, 30), st.integers(0, 100))
def test_as_many_groups_as_fit_hold_every_object_once(counts, max_groups, max_queries, seed) -> None:
    boxes, labels = batch(counts, seed)
    learned = torch.rand(5, 3)
    queries, targets = denoising_queries(
        learned, boxes, labels, RANGE, max_groups=max_groups, max_queries=max_queries, background_distance=2.0
    )
    groups = min(max_groups, max_queries // max(counts)) if max(counts) else 0
    assert queries.denoising == groups * max(counts) == targets.labels.shape[1]
    assert queries.reference_points.shape == (len(counts), queries.denoising + 5, 3)
    assert torch.equal(queries.reference_points[:, queries.denoising :], learned.expand(len(counts), -1, -1))
    assert (queries.reference_points >= 0).all() and (queries.reference_points <= 1).all()
    for sample, count in enumerate(counts):
        assert int(targets.real[sample].sum()) == groups * count
        for group in range(groups):
            slots = slice(group * max(counts), group * max(counts) + count)
            assert targets.real[sample, slots].all()
            assert torch.equal(targets.boxes[sample, slots], boxes[sample])
            assert torch.equal(targets.labels[sample, slots], labels[sample])
        empty = ~targets.real[sample]
        assert (targets.labels[sample][empty] == BACKGROUND).all()
        assert (queries.reference_points[sample, : queries.denoising][empty] == 0.5).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_displaced_centres_stay_inside_their_boxes_and_far_ones_are_background(seed: int) -> None:
    boxes, labels = batch([4, 6], seed)
    queries, targets = denoising_queries(torch.rand(1, 3), boxes, labels, RANGE)
    points = queries.reference_points[:, : queries.denoising] * (UPPER - LOWER) + LOWER
    real = targets.real
    offset = (points - targets.boxes[..., :3])[real]
    box = targets.boxes[real]
    sine, cosine = box[:, 6].sin(), box[:, 6].cos()
    along = cosine * offset[:, 0] + sine * offset[:, 1]
    across = cosine * offset[:, 1] - sine * offset[:, 0]
    halves = torch.stack((along, across, offset[:, 2]), dim=1) / (box[:, 3:6] / 2)
    assert (halves.abs() <= 1 + 1e-3).all()
    distance = halves.norm(dim=1)
    clear = (distance - 0.75).abs() > 1e-3
    assert torch.equal((targets.labels[real] == BACKGROUND)[clear], (distance > 0.75)[clear])


def test_noise_fills_the_boxes_evenly() -> None:
    box = torch.tensor([[3.0, -2.0, 0.0, 4.0, 2.0, 1.5, 0.7, 0.0, 0.0]])
    queries, targets = denoising_queries(
        torch.rand(1, 3), [box], [torch.tensor([2])], RANGE, torch.Generator().manual_seed(0), max_groups=900
    )
    assert queries.denoising == 900
    # The ball of radius 0.75 takes pi / 6 x 0.75^3 of its cube.
    share = (targets.labels != BACKGROUND).float().mean().item()
    assert abs(share - math.pi / 6 * 0.75**3) < 0.05
    mean = (queries.reference_points[0, :900] * (UPPER - LOWER) + LOWER).mean(0)
    torch.testing.assert_close(mean, box[0, :3], atol=0.15, rtol=0)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 4))
def test_the_mask_hides_the_truth_from_matching_queries_and_groups_from_each_other(most, groups, learned) -> None:
    queries, _ = denoising_queries(torch.rand(learned, 3), *batch([most, 0]), RANGE, max_groups=groups)
    assert queries.mask is not None and queries.mask.shape == (groups * most + learned,) * 2
    for row in range(len(queries.mask)):
        for column in range(len(queries.mask)):
            hidden_column = column < groups * most
            same_group = row < groups * most and row // most == column // most
            assert bool(queries.mask[row, column]) == (hidden_column and not same_group)


def test_the_same_seed_gives_the_same_noise() -> None:
    boxes, labels = batch([3])
    learned = torch.rand(2, 3)
    drawn = [
        denoising_queries(learned, boxes, labels, RANGE, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    ]
    assert torch.equal(drawn[0].reference_points, drawn[1].reference_points)
    assert not torch.equal(drawn[0].reference_points, drawn[2].reference_points)


def test_a_batch_with_more_objects_than_queries_has_no_denoising_queries() -> None:
    queries, targets = denoising_queries(torch.rand(4, 3), *batch([6, 1]), RANGE, max_queries=5)
    assert queries.denoising == 0 and queries.mask is None and targets.boxes.shape == (2, 0, 9)


def test_learned_reference_points_keep_their_gradient() -> None:
    learned = torch.rand(4, 3, requires_grad=True)
    queries, _ = denoising_queries(learned, *batch([2, 3]), RANGE)
    queries.reference_points.sum().backward()
    assert learned.grad is not None and torch.equal(learned.grad, torch.full((4, 3), 2.0))
