# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""PETRv2's memory and its geometry relative to the current frame."""

from itertools import pairwise

import pytest
import torch
from helpers import camera_ring
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aqr_perception.models.model_io import History
from aqr_perception.models.petr.memory import CameraFrame, nearest_frame, past_frames, remembered_frames
from aqr_perception.models.petr.position import increasing_depths, lift

GAP = 1.245
DEPTHS = increasing_depths(8, 61.2)


def captured(seconds: float = 0.0) -> CameraFrame:
    return CameraFrame(torch.zeros(1, 6, 4, 2, 3), camera_ring.projections(), torch.arange(6)[None], seconds)


def lifted_in_world(frame: CameraFrame, to_world: Tensor) -> Tensor:
    points = lift(frame.lidar_to_image, 2, 3, camera_ring.SIZE, DEPTHS).double()
    return points @ to_world[:3, :3].T + to_world[:3, 3]


POSES = st.tuples(st.floats(-30, 30), st.floats(-30, 30), st.floats(-3.1, 3.1))


@settings(max_examples=30, deadline=None)
@given(st.lists(POSES, min_size=2, max_size=4))
def test_moving_the_vehicle_without_moving_the_world_leaves_the_past_frustum_in_place(
    poses: list[tuple[float, float, float]],
) -> None:
    drive = [camera_ring.pose(*pose) for pose in poses]
    frame = captured()
    in_world = lifted_in_world(frame, drive[0])
    for before, now in pairwise(drive):
        to_current = (torch.linalg.inv(now) @ before).float()
        (frame,) = past_frames(History((frame,), to_current, now.float(), 0.5))
    torch.testing.assert_close(lifted_in_world(frame, drive[-1]), in_world, atol=5e-3, rtol=0)
    assert frame.seconds == 0.5 * (len(drive) - 1)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.04, 1.5))
def test_at_any_frame_rate_the_nearest_frame_has_about_the_desired_age_and_few_are_kept(period: float) -> None:
    past: tuple[CameraFrame, ...] = ()
    for _ in range(round(4 / period) + 3):
        past = remembered_frames(past, captured(), GAP)
        past = past_frames(History(past, torch.eye(4), torch.eye(4), period))
    chosen = nearest_frame(past, GAP)
    assert chosen is not None
    assert abs(chosen.seconds - GAP) <= max(period, 0.2 * GAP + period) / 2 + 1e-6
    assert len(past) <= 12


def test_a_single_frame_is_the_nearest_at_any_age() -> None:
    assert nearest_frame((captured(0.05),), GAP) is not None
    assert nearest_frame((), GAP) is None


def test_a_frame_without_cameras_is_not_remembered_but_earlier_ones_are() -> None:
    past = remembered_frames((), captured(), GAP)
    (moved,) = past_frames(History(past, torch.eye(4), torch.eye(4), 0.5))
    assert remembered_frames((moved,), None, GAP) == (moved,)
    assert remembered_frames((captured(3 * GAP),), None, GAP) == ()


def test_without_history_there_are_no_past_frames() -> None:
    assert past_frames(None) == ()
    assert past_frames(History(None, torch.eye(4), torch.eye(4), 0.0)) == ()


@pytest.mark.parametrize("state", [torch.zeros(1), (1, 2)])
def test_another_models_history_is_refused(state: object) -> None:
    with pytest.raises(TypeError, match=r"history\.state"):
        past_frames(History(state, torch.eye(4), torch.eye(4), 0.5))
