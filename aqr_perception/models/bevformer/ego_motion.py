# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The vehicle's motion between two frames, in the format that BEVFormer's weights expect."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aqr_perception.geometry import quaternion_xyzw
from aqr_perception.models.model_io import History

CAN_BUS_SIZE = 18


class EgoMotion(NamedTuple):
    """The vehicle's motion since the previous frame, and its pose.

    Attributes:
        can_bus: (B, 18) float32, the published models' CAN bus vector. 0:3 translation since the previous frame in
            metres, in the fixed frame; 3:7 quaternion (w, x, y, z), w >= 0, of the vehicle in the fixed frame; 16 its
            yaw there in radians, 0 to 2 pi; 17 its rotation since the previous frame in degrees, -180 to 180. 7:16 are
            0: the authors' vector has acceleration, rates and velocity there, but zeros in drives without a CAN bus
            recording.
        translation: (B, 2) float32, x and y since the previous frame in metres, along the current model frame's axes.
        rotation: (B,) float64 radians, counter-clockwise.
    """

    can_bus: Tensor
    translation: Tensor
    rotation: Tensor


def ego_motion(history: History | None, batch: int, forward: float) -> EgoMotion:
    """Return the motion between the poses of two frames.

    The authors' vehicle frame is that of nuScenes' inertial unit: x forward, behind the LiDAR. Ours is the model frame
    rotated about z to face forward, with the model frame's origin, because the BEV grid moves with that origin.
    On level ground the two translations differ by the lever arm times the rotation, centimetres at 2 Hz.

    Args:
        history: None where the motion is not known: then the vehicle stands still and faces the fixed frame's x. With a
            state of None, at the start of a drive, it stands still at its pose.
        batch: number of samples; each has its own pose, or all share one.
        forward: direction of the vehicle's front in the model frame in degrees, counter-clockwise from +x.
    """
    identity = torch.eye(4, dtype=torch.float64).expand(batch, 4, 4)
    to_current, to_fixed, pose = identity, identity, identity
    if history is not None:
        to_fixed = history.to_fixed.double().cpu().expand(batch, 4, 4)
        pose = to_fixed @ _heading(forward)
        if history.state is not None:
            to_current = history.to_current.double().cpu().expand(batch, 4, 4)

    # The translation starts at the previous frame's origin.
    translation = -to_current[:, :3, 3]
    rotation = -torch.atan2(to_current[:, 1, 0], to_current[:, 0, 0])
    can_bus = torch.zeros(batch, CAN_BUS_SIZE, dtype=torch.float64)
    can_bus[:, :3] = (to_fixed[:, :3, :3] @ translation[..., None])[..., 0]
    can_bus[:, 3:7] = torch.stack([_quaternion(transform) for transform in pose])
    can_bus[:, 16] = torch.atan2(pose[:, 1, 0], pose[:, 0, 0]) % (2 * math.pi)
    can_bus[:, 17] = rotation.rad2deg()
    return EgoMotion(can_bus.float(), translation[:, :2].float(), rotation)


def _heading(forward: float) -> Tensor:
    """Return (4, 4), the model frame rotated to face forward -> the model frame."""
    angle = math.radians(forward)
    rotation = torch.eye(4, dtype=torch.float64)
    rotation[0, 0] = rotation[1, 1] = math.cos(angle)
    rotation[1, 0], rotation[0, 1] = math.sin(angle), -math.sin(angle)
    return rotation


def _quaternion(pose: Tensor) -> Tensor:
    quaternion = torch.from_numpy(quaternion_xyzw(pose.numpy()))[[3, 0, 1, 2]]
    return quaternion if quaternion[0] >= 0 else -quaternion


def rotate_bev(bev: Tensor, rotation: Tensor, grid: tuple[int, int], centre: tuple[float, float]) -> Tensor:
    """Return BEV features (B, N, C) after a rotation of the vehicle on the spot; zeros in cells that come into range.

    Cells are sampled by nearest neighbour, as published. Unlike in the authors' code, the input is not modified.

    Args:
        bev: row by row.
        rotation: (B,) radians, counter-clockwise.
        grid: rows (y) and columns (x).
        centre: x and y of the rotation's centre, in cells from the grid's corner.
    """
    rows, columns = grid
    angle = rotation.to(bev.device, torch.float64)[:, None, None]
    y = torch.arange(rows, device=bev.device, dtype=torch.float64)[:, None] + 0.5 - centre[1]
    x = torch.arange(columns, device=bev.device, dtype=torch.float64) + 0.5 - centre[0]
    column = (angle.cos() * x - angle.sin() * y + centre[0]).floor().long()
    row = (angle.sin() * x + angle.cos() * y + centre[1]).floor().long()
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    source = torch.where(inside, row * columns + column, 0).flatten(1)
    gathered = bev.gather(1, source[..., None].expand(-1, -1, bev.shape[2]))
    return torch.where(inside.flatten(1)[..., None], gathered, 0.0)
