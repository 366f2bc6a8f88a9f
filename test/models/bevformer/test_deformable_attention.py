# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Every implementation of deformable attention is a weighted sum of bilinear samples."""

import pytest
import torch
from helpers.deformable_attention_inputs import SHAPES, attend_by_loops, random_inputs

from aqr_perception.models.bevformer.deformable_attention import Sampling, attend, offset_bias


@pytest.mark.parametrize("with_gradients", [False, True])
def test_it_equals_a_plain_loop(with_gradients: bool) -> None:
    values, places, weights = random_inputs()
    expected = attend_by_loops(values, places, weights)
    found = attend(values.requires_grad_(with_gradients), SHAPES, places, weights)
    assert found.requires_grad == with_gradients
    torch.testing.assert_close(found.detach(), expected, atol=1e-5, rtol=1e-5)


def test_gradients_reach_values_places_and_weights() -> None:
    inputs = tuple(tensor.double().requires_grad_() for tensor in random_inputs(queries=2))
    attend(inputs[0], SHAPES, inputs[1], inputs[2]).square().sum().backward()
    step = 1e-3
    for tensor in inputs:
        index = tensor.grad.abs().flatten().argmax()
        moved = []
        for sign in (-1, 1):
            other = [each.detach().clone() for each in inputs]
            other[[each is tensor for each in inputs].index(True)].flatten()[index] += sign * step
            moved.append(attend(other[0], SHAPES, other[1], other[2]).double().square().sum())
        assert float((moved[1] - moved[0]) / (2 * step)) == pytest.approx(float(tensor.grad.flatten()[index]), rel=0.02)


def test_places_outside_the_map_give_zeros_at_any_distance() -> None:
    values, places, weights = random_inputs()
    for far in (3.0, -1e6, 1e30):
        assert not attend(values, SHAPES, torch.full_like(places, far), weights).any()


def test_heads_start_in_different_directions_and_points_go_outwards() -> None:
    offsets = offset_bias(8, 2, 4).view(8, 2, 4, 2)
    assert torch.equal(offsets[:, 0], offsets[:, 1])
    assert len({tuple(direction) for direction in offsets[:, 0, 0].round().tolist()}) == 8
    torch.testing.assert_close(offsets.abs().amax(-1)[3, 0], torch.tensor([1.0, 2.0, 3.0, 4.0]))


def test_offsets_are_in_cells_of_their_level_and_weights_sum_to_one() -> None:
    sampling = Sampling(16, heads=2, levels=2, points=3, maps=2)
    offsets, weights = sampling.points(torch.randn(1, 5, 16), [(10, 20), (5, 4)])
    assert offsets.shape == (1, 5, 2, 2, 2, 3, 2)
    first = offsets[0, 0, 0, 0]  # head 0 points along +x
    torch.testing.assert_close(first[0, :, 0] * 20, first[1, :, 0] * 4)
    torch.testing.assert_close(weights.sum((-1, -2)), torch.ones(1, 5, 2, 2))
