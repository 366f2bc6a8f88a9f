# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Of several boxes of one object, the best one stays."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aqr_perception.models.boxes.coder import decode, encode
from aqr_perception.models.boxes.duplicates import LEAST_SIDE, first_of_each_object


def box(x: float, y: float, length: float = 4.0, width: float = 2.0, yaw: float = 0.0) -> list[float]:
    return [x, y, 0.0, length, width, 1.5, yaw, 0.0, 0.0]


def contains(outer: Tensor, inner: Tensor) -> bool:
    """Return whether a box contains another one's centre from above, by the distance from its two axes."""
    dx, dy = (inner[:2] - outer[:2]).tolist()
    length, width = (max(float(side), LEAST_SIDE) for side in outer[3:5])
    distance, direction = math.hypot(dx, dy), math.atan2(dy, dx) - float(outer[6])
    along, across = abs(distance * math.cos(direction)), abs(distance * math.sin(direction))
    return along < length / 2 and across < width / 2


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 30))
def test_a_box_goes_exactly_if_a_better_one_that_stays_contains_its_centre(seed: int, count: int) -> None:
    random = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 9, generator=random, dtype=torch.float64) * torch.tensor([8.0, 8, 1, 5, 3, 2, 6, 1, 1])
    labels = torch.randint(2, (count,), generator=random)
    first = first_of_each_object(boxes, labels).tolist()
    for index in range(count):
        better = [other for other in range(index) if first[other] and labels[other] == labels[index]]
        assert first[index] != any(contains(boxes[other], boxes[index]) for other in better)


def test_neighbours_stay_and_second_boxes_go_in_the_boxes_own_axes() -> None:
    turned = box(0, 0, length=10, width=2, yaw=math.pi / 2)
    boxes = torch.tensor([turned, box(0, 4), box(4, 0), box(0.9, 0), box(1.1, 0)])
    assert first_of_each_object(boxes, torch.zeros(5)).tolist() == [True, False, True, False, True]


def test_small_boxes_suppress_within_half_a_metre_and_other_classes_never() -> None:
    cones = torch.tensor([box(0, 0, 0.3, 0.3), box(0.45, 0, 0.3, 0.3), box(0.55, 0, 0.3, 0.3), box(0, 0)])
    assert first_of_each_object(cones, torch.tensor([0, 0, 0, 1])).tolist() == [True, False, True, True]


def test_duplicates_take_no_place_of_other_objects() -> None:
    boxes = encode(torch.tensor([box(0, 0), box(0.1, 0), box(0.2, 0), box(9, 0)]))[None]
    logits = torch.tensor([[[2.0], [1.0], [0.5], [0.0]]])
    (published,), (small,) = decode(logits, boxes, 2), decode(logits, boxes, 2, nms=True)
    assert published.query_index.tolist() == [0, 1]
    assert small.query_index.tolist() == [0, 3]
    assert decode(logits, boxes, 1, nms=True)[0].query_index.tolist() == [0]
    torch.testing.assert_close(small.scores, logits[0, [0, 3], 0].sigmoid())
