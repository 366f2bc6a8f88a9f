# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The aligned history of a static world stays in place for every motion of the vehicle."""

import math

import pytest
import torch
from helpers.camera_ring import pose
from helpers.small_bevformer import history
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aqr_perception.models.bevformer.deformable_attention import attend
from aqr_perception.models.bevformer.ego_motion import ego_motion, rotate_bev
from aqr_perception.models.model_io import History

GRID = (30, 40)
"""Rows and columns of 1 m cells."""
MIDDLE = (20.0, 15.0)


def centres() -> Tensor:
    """Return (N, 2), x and y of the cells' centres in metres, vehicle frame."""
    y, x = torch.meshgrid(
        torch.arange(GRID[0]) + 0.5 - MIDDLE[1], torch.arange(GRID[1]) + 0.5 - MIDDLE[0], indexing="ij"
    )
    return torch.stack((x, y), dim=-1).flatten(0, 1).double()


def seen_from(vehicle: Tensor) -> Tensor:
    """Return (1, N, 2), a BEV of a static world: the world position of every cell."""
    return (centres() @ vehicle[:2, :2].T + vehicle[:2, 3])[None]


def moved(before: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
    """Return the past view as the encoder samples it now, (N, 2), and where it has values, (N,)."""
    motion = ego_motion(history("past", before, now), 1, 0.0)
    past = torch.cat((seen_from(before), torch.ones(1, len(centres()), 1)), dim=-1).float()
    there = rotate_bev(past, motion.rotation, GRID, MIDDLE)
    size = torch.tensor((GRID[1], GRID[0]))
    places = (centres() + torch.tensor(MIDDLE)) / size + motion.translation / size
    found = attend(there[:, :, None], [GRID], places[None, :, None, None, None], torch.ones(1, len(places), 1, 1, 1))[0]
    return found[:, :2], found[:, 2] > 0.999


@settings(max_examples=25, deadline=None)
@given(
    x=st.floats(-100, 100),
    y=st.floats(-100, 100),
    yaw=st.floats(-math.pi, math.pi),
    way=st.tuples(st.floats(-5, 5), st.floats(-5, 5)),
    turn=st.floats(-1, 1),
)
def test_the_history_aligns_with_a_static_world(
    x: float, y: float, yaw: float, way: tuple[float, float], turn: float
) -> None:
    before, now = pose(x, y, yaw), pose(x + way[0], y + way[1], yaw + turn)
    found, known = moved(before, now)
    assert known.float().mean() > 0.3
    error = (found - seen_from(now)[0]).abs()[known]
    # Rotation takes the nearest cell, so it is off by up to half a cell's diagonal.
    assert error.max() < 0.71 + 1e-3


@pytest.mark.parametrize(("way", "turn"), [((3.0, -2.0), 0.0), ((0.0, 0.0), math.pi / 2), ((4.0, 1.0), math.pi)])
def test_whole_cells_and_quarter_turns_align_exactly(way: tuple[float, float], turn: float) -> None:
    before, now = pose(0.0, 0.0, 0.0), pose(*way, turn)
    found, known = moved(before, now)
    assert known.any()
    torch.testing.assert_close(found[known].double(), seen_from(now)[0][known], atol=1e-4, rtol=0)


def test_rotation_does_not_modify_its_input_and_fills_with_zeros() -> None:
    view = torch.rand(1, GRID[0] * GRID[1], 3) + 1.0
    copy = view.clone()
    result = rotate_bev(view, torch.tensor([0.3]), GRID, (100.0, 100.0))
    assert torch.equal(view, copy)
    new = (result == 0).all(-1)
    assert 0 < new.float().mean() < 1 and result[~new].min() >= 1.0


def test_each_sample_of_a_batch_rotates_by_its_own_angle() -> None:
    view = torch.rand(2, GRID[0] * GRID[1], 3)
    turn = torch.tensor([0.4, -0.7])
    together = rotate_bev(view, turn, GRID, MIDDLE)
    for sample in range(2):
        one = slice(sample, sample + 1)
        assert torch.equal(together[one], rotate_bev(view[one], turn[one], GRID, MIDDLE))


@settings(max_examples=25, deadline=None)
@given(yaw=st.floats(-3.1, 3.1), forward=st.sampled_from([0.0, 90.0]), turn=st.floats(-30.0, 30.0))
def test_the_can_bus_vector_holds_the_vehicles_pose(yaw: float, forward: float, turn: float) -> None:
    # The model frame is rotated relative to the vehicle's.
    before = pose(10.0, 20.0, yaw - math.radians(turn) - math.radians(forward))
    now = pose(11.0, 20.5, yaw - math.radians(forward))
    vector = ego_motion(history("past", before, now), 1, forward).can_bus[0]
    torch.testing.assert_close(vector[:3], torch.tensor([1.0, 0.5, 0.0]), atol=1e-4, rtol=0)
    assert float(vector[17]) == pytest.approx(turn, abs=1e-3)
    assert math.cos(float(vector[16])) == pytest.approx(math.cos(yaw), abs=1e-5) and 0 <= vector[16] <= 2 * math.pi
    quaternion = torch.tensor([math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)])
    torch.testing.assert_close(vector[3:7], quaternion, atol=1e-5, rtol=0)
    assert not vector[7:16].any()


def test_a_drive_starts_at_the_vehicles_pose() -> None:
    start = history(None, pose(0, 0, 0), pose(5.0, 6.0, 1.0))
    motion = ego_motion(start, 2, 0.0)
    assert not motion.can_bus[:, :3].any() and not motion.can_bus[:, 17].any() and not motion.translation.any()
    torch.testing.assert_close(motion.can_bus[:, 16], torch.ones(2))


def test_unknown_motion_counts_as_standing_still() -> None:
    motion = ego_motion(None, 1, 90.0)
    expected = torch.zeros(1, 18)
    expected[0, 3] = 1.0
    assert torch.equal(motion.can_bus, expected) and not motion.rotation.any()


def test_samples_may_have_different_poses() -> None:
    one, two = (history("past", pose(0, 0, 0), pose(1.0, 2.0, turn)) for turn in (0.1, -0.2))
    both = History("past", *(torch.stack(pair) for pair in zip(one[1:3], two[1:3], strict=True)), 0.5)
    motion = ego_motion(both, 2, 0.0)
    for sample, alone in enumerate((one, two)):
        torch.testing.assert_close(motion.can_bus[sample], ego_motion(alone, 1, 0.0).can_bus[0])
