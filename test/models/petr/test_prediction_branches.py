# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""PETR's prediction branches, and the conversion from the published box convention to ours."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.models.boxes.coder import decode_boxes
from aqr_perception.models.petr.prediction_branches import BoxTasks, box_branches, class_branches, to_box_codes

POINT_RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
SIZES = st.floats(0.2, 12.0)


@settings(max_examples=50, deadline=None)
@given(SIZES, SIZES, SIZES, st.floats(-3.1, 3.1))
def test_old_mmdet3d_boxes_are_converted_to_length_along_the_heading(
    width: float, length: float, height: float, yaw: float
) -> None:
    old_yaw = -yaw - math.pi / 2
    sizes = (math.log(width), math.log(length), 0.0, math.log(height))
    raw = torch.tensor([[0.0, 0.0, *sizes, math.sin(old_yaw), math.cos(old_yaw), 1.0, -2.0]])
    box = decode_boxes(to_box_codes(raw, torch.full((1, 3), 0.5), POINT_RANGE, None))[0]
    expected = torch.tensor([0.0, 0.0, -1.0, length, width, height, yaw, 1.0, -2.0])
    torch.testing.assert_close(box, expected, atol=1e-4, rtol=1e-4)


@settings(max_examples=50, deadline=None)
@given(SIZES, SIZES, SIZES, st.floats(-3.1, 3.1))
def test_new_mmdet3d_boxes_have_length_and_yaw_along_the_heading(
    width: float, length: float, height: float, yaw: float
) -> None:
    sizes = (math.log(length), math.log(width), 0.0, math.log(height))
    raw = torch.tensor([[0.0, 0.0, *sizes, math.sin(yaw), math.cos(yaw), 1.0, -2.0]])
    box = decode_boxes(to_box_codes(raw, torch.full((1, 3), 0.5), POINT_RANGE, None, "mmdet3d_1"))[0]
    expected = torch.tensor([0.0, 0.0, -1.0, length, width, height, yaw, 1.0, -2.0])
    torch.testing.assert_close(box, expected, atol=1e-4, rtol=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.01, 0.99), min_size=3, max_size=3))
def test_an_output_of_zero_leaves_the_centre_at_its_anchor(anchor: list[float]) -> None:
    anchors = torch.tensor([anchor])
    box = decode_boxes(to_box_codes(torch.zeros(1, 10), anchors, POINT_RANGE, None))
    lower, upper = torch.tensor(POINT_RANGE[:3]), torch.tensor(POINT_RANGE[3:])
    torch.testing.assert_close(box[:, :3], anchors * (upper - lower) + lower, atol=1e-3, rtol=0)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.05, 3.0))
def test_a_motion_over_some_time_is_a_velocity(seconds: float) -> None:
    raw, anchors = torch.randn(1, 10, generator=torch.Generator().manual_seed(0)), torch.full((1, 3), 0.5)
    motion, velocity = to_box_codes(raw, anchors, POINT_RANGE, None), to_box_codes(raw, anchors, POINT_RANGE, seconds)
    torch.testing.assert_close(velocity[:, 8:] * seconds, motion[:, 8:])
    assert torch.equal(velocity[:, :8], motion[:, :8])


def test_a_shared_branch_stored_for_every_layer_takes_its_last_copy() -> None:
    for branches in (class_branches(8, 10, 6, shared=True), box_branches(8, 6)):
        stored = {key: torch.full_like(value, float(key[0])) for key, value in branches.state_dict().items()}
        assert len(stored) == 6 * len(branches[0].state_dict())
        branches.load_state_dict(stored)
        assert all((value == 5).all() for value in branches.state_dict().values())
        assert len(list(branches.parameters())) == len(list(branches[0].parameters()))


def test_petrv2_has_a_branch_for_each_layer() -> None:
    branches = class_branches(8, 10, 3, shared=False)
    with torch.no_grad():
        branches[0][6].bias.add_(1.0)
    assert not torch.equal(branches[0][6].bias, branches[1][6].bias)


def test_every_class_starts_from_a_prior_of_one_percent() -> None:
    logits = class_branches(8, 10, 1, shared=True)[0][6].bias
    torch.testing.assert_close(logits.sigmoid().detach(), torch.full((10,), 0.01))


@pytest.mark.parametrize(("task", "outputs"), [(0, (0, 1)), (1, (2,)), (2, (3, 4, 5)), (3, (6, 7)), (4, (8, 9))])
def test_a_task_owns_its_outputs(task: int, outputs: tuple[int, ...]) -> None:
    branch, queries = BoxTasks(8), torch.randn(2, 3, 8)
    with torch.no_grad():
        before = branch(queries)
        branch.task_heads[task][2].bias.add_(1.0)
        changed = (branch(queries) - before).abs().amax((0, 1)) > 0.5
    assert tuple(changed.nonzero().flatten().tolist()) == outputs
