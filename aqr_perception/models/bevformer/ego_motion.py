"""The vehicle's motion between two frames, in the form that BEVFormer's weights expect."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aqr_perception.geometry import quaternion_xyzw
from aqr_perception.models.detection_model import History


class EgoMotion(NamedTuple):
    """How the vehicle has moved since the frame before, and how it stands.

    Attributes:
        vehicle: (B, 18) float32, the published models' CAN bus vector. 0:3 way since the frame before in metres, in the
            fixed frame; 3:7 quaternion (w, x, y, z), w >= 0, of the vehicle in the fixed frame; 16 its yaw there in
            radians, 0 to 2 pi; 17 its turn since the frame before in degrees, -180 to 180. 7:16 are 0: the authors have
            acceleration, rates and velocity there, but zeros in the drives without a CAN bus recording.
        way: (B, 2) float32, x and y of the way since the frame before in metres, along the current model frame's axes.
        turn: (B,) float64 radians, counter-clockwise.
    """

    vehicle: Tensor
    way: Tensor
    turn: Tensor


def ego_motion(history: History | None, batch: int, forward: float) -> EgoMotion:
    """Return the motion out of the poses of two frames.

    The authors' vehicle frame is that of nuScenes' inertial unit: x forward, behind the LiDAR. Ours is the model frame
    turned about z to face forward, with the model frame's origin: what the origin itself travels is what moves the
    bird's-eye view, and on level ground the two ways differ by the lever arm times the turn, centimetres at 2 Hz.

    Args:
        history: None where the motion is not known: then the vehicle stands still and faces the fixed frame's x. With a
            state of None, at the start of a drive, it stands still where it is.
        batch: number of samples; each has its own pose, or all share one.
        forward: direction of the vehicle's front in the model frame in degrees, counter-clockwise from +x.
    """
    stands_still = torch.eye(4, dtype=torch.float64).expand(batch, 4, 4)
    to_current, pose = stands_still, stands_still
    if history is not None:
        pose = history.to_fixed.double().cpu().expand(batch, 4, 4) @ _turned_to(forward)
        if history.state is not None:
            to_current = history.to_current.double().cpu().expand(batch, 4, 4)

    # The past frame's origin lies where the way began.
    way = -to_current[:, :3, 3]
    turn = -torch.atan2(to_current[:, 1, 0], to_current[:, 0, 0])
    vehicle = torch.zeros(batch, 18, dtype=torch.float64)
    if history is not None:
        vehicle[:, :3] = (history.to_fixed.double().cpu().expand(batch, 4, 4)[:, :3, :3] @ way[..., None])[..., 0]
    vehicle[:, 3:7] = torch.stack([_quaternion(transform) for transform in pose])
    vehicle[:, 16] = torch.atan2(pose[:, 1, 0], pose[:, 0, 0]) % (2 * math.pi)
    vehicle[:, 17] = turn.rad2deg()
    return EgoMotion(vehicle.float(), way[:, :2].float(), turn)


def _turned_to(forward: float) -> Tensor:
    """Return (4, 4), the model frame turned to face forward -> the model frame."""
    angle = math.radians(forward)
    rotation = torch.eye(4, dtype=torch.float64)
    rotation[0, 0] = rotation[1, 1] = math.cos(angle)
    rotation[1, 0], rotation[0, 1] = math.sin(angle), -math.sin(angle)
    return rotation


def _quaternion(pose: Tensor) -> Tensor:
    quaternion = torch.from_numpy(quaternion_xyzw(pose.numpy()))[[3, 0, 1, 2]]
    return quaternion if quaternion[0] >= 0 else -quaternion


def turned(bev: Tensor, turn: Tensor, grid: tuple[int, int], centre: tuple[float, float]) -> Tensor:
    """Return a bird's-eye view (B, N, C) as a vehicle that has turned on the spot would have it; zeros where it is new.

    Cells are taken as they are (nearest neighbour), as published. The given view is not written to, as the authors'
    code does.

    Args:
        bev: row by row.
        turn: (B,) radians, counter-clockwise.
        grid: rows (y) and columns (x).
        centre: x and y about which is turned, in cells from the grid's corner.
    """
    rows, columns = grid
    turn = turn.to(bev.device, torch.float64)[:, None, None]
    y = torch.arange(rows, device=bev.device, dtype=torch.float64)[:, None] + 0.5 - centre[1]
    x = torch.arange(columns, device=bev.device, dtype=torch.float64) + 0.5 - centre[0]
    column = (turn.cos() * x - turn.sin() * y + centre[0]).floor().long()
    row = (turn.sin() * x + turn.cos() * y + centre[1]).floor().long()
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    source = torch.where(inside, row * columns + column, 0).flatten(1)
    taken = bev.gather(1, source[..., None].expand(-1, -1, bev.shape[2]))
    return torch.where(inside.flatten(1)[..., None], taken, 0.0)
