# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sensors whose data is intact but does not fit the others: turned, shifted and delayed ones, with their health.

Each such sensor looks fine alone. Its health is low because its data describes other places than its calibration and
stamp say, so a position has a health by the displacement of the data there.
"""

import dataclasses

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from aqr_perception.data.corruption.lidar_corruption import CorruptedCloud, cell_centres, uniform_health
from aqr_perception.data.health import HEALTH_GRID
from aqr_perception.frame import CameraView, LabelledFrame
from aqr_perception.geometry import invert, transform_points

HALVING_DISTANCE = 0.5
"""Displacement in metres of a LiDAR's points that halves its health: nuScenes' strictest matching distance."""
HALVING_ANGLE = 3.0
"""Rotation of a camera in degrees that halves its health: half a metre at 10 m."""


def misplaced(view: CameraView, offset: NDArray[np.float64]) -> CameraView:
    """Return a camera with a calibration error: a rigid (4, 4) transform of the model frame."""
    return dataclasses.replace(view, extrinsics=view.extrinsics @ offset)


def random_offset(severity: float, rng: Generator) -> NDArray[np.float64]:
    """Return a (4, 4) calibration error: at severity 1, 3 degrees about and 0.3 m along random axes."""
    axes = rng.standard_normal((2, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    offset = np.eye(4)
    offset[:3, :3] = Rotation.from_rotvec(np.radians(3.0 * severity) * axes[0]).as_matrix()
    offset[:3, 3] = 0.3 * severity * axes[1]
    return offset


def turned(view: CameraView, degrees: float) -> CameraView:
    """Return a camera that is turned about its own vertical axis, against its calibration.

    The picture stays and the calibration changes, which is the same up to the picture's borders. Positive angles turn
    the camera to its left.
    """
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("y", -degrees, degrees=True).as_matrix()
    return dataclasses.replace(view, extrinsics=turn @ view.extrinsics)


def turned_health(degrees: float) -> NDArray[np.float32]:
    """Return the health of a turned camera, the same everywhere, because a rotation moves all pixels alike."""
    return np.full(HEALTH_GRID, 0.5 ** (abs(degrees) / HALVING_ANGLE), np.float32)


def moved_lidar(points: NDArray[np.float32], offset: NDArray[np.float64]) -> CorruptedCloud:
    """Return the points of a LiDAR with a calibration error: a rigid (4, 4) transform of the model frame.

    Health halves with every `HALVING_DISTANCE` by which the points near a position are off horizontally. After a
    rotation it falls with the distance from the LiDAR.
    """
    moved = points.copy()
    moved[:, :3] = transform_points(offset, points)
    x, y = cell_centres()
    places = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=-1)
    off = np.linalg.norm((transform_points(offset, places) - places)[:, :2], axis=1).reshape(x.shape)
    return CorruptedCloud(moved, _health_of(off))


def delayed_lidar(labelled: LabelledFrame, earlier: LabelledFrame) -> CorruptedCloud | None:
    """Return the LiDAR's points of an earlier frame, at their old places; None if that frame has none.

    Health is that of the displacement since then: of the vehicle everywhere, and of each moving object around it.

    Raises:
        ValueError: the frame is not earlier.
    """
    seconds = seconds_between(labelled, earlier, "the LiDAR")
    points = earlier.frame.points
    if points is None:
        return None
    motion = np.linalg.inv(earlier.model_to_world) @ labelled.model_to_world
    x, y = cell_centres()
    places = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=-1)
    before = transform_points(motion, places)
    off = np.linalg.norm((before - places)[:, :2], axis=1)
    for box in labelled.truth.boxes:
        velocity = np.nan_to_num(box[7:9].astype(np.float64))
        if np.hypot(*velocity) < 0.2:
            continue
        then = box[:3].astype(np.float64)
        then[:2] -= velocity * seconds
        displacement = float(np.linalg.norm((transform_points(motion, then[None])[0] - box[:3])[:2]))
        near = np.hypot(places[:, 0] - box[0], places[:, 1] - box[1]) < max(box[3:5].max() / 2, 1.0) + 1.0
        off[near] = displacement
    return CorruptedCloud(points, _health_of(off.reshape(x.shape)))


def delay_health(labelled: LabelledFrame, earlier: LabelledFrame, sensor: str) -> NDArray[np.float32]:
    """Return the health of a camera whose picture is from an earlier frame: less by time, way and rotation since then.

    Raises:
        ValueError: the frame is not earlier.
    """
    seconds = seconds_between(labelled, earlier, sensor)
    motion = np.linalg.inv(earlier.model_to_world) @ labelled.model_to_world
    travelled = float(np.linalg.norm(motion[:3, 3]))
    rotated = float(np.arccos(np.clip((np.trace(motion[:3, :3]) - 1) / 2, -1, 1)))
    return np.full(HEALTH_GRID, np.exp(-seconds / 1.0 - travelled / 2.0 - rotated / 0.1), np.float32)


def seconds_between(labelled: LabelledFrame, earlier: LabelledFrame, sensor: str) -> float:
    """Return the time between two frames; raise ValueError if the second is not the earlier one."""
    seconds = (labelled.frame.stamp_ns - earlier.frame.stamp_ns) / 1e9
    if seconds <= 0:
        raise ValueError(
            f"{sensor}: found a frame {-seconds:.3f} s later, needed an earlier one to freeze; pass an earlier frame"
        )
    return seconds


def vehicle_axes(heading: float) -> NDArray[np.float64]:
    """Return the rotation (4, 4) from axes x right, y forward, z up to a model frame with this azimuth of forward."""
    axes = np.eye(4)
    axes[:3, :3] = Rotation.from_euler("z", heading - np.pi / 2).as_matrix()
    return axes


def in_vehicle_axes(offset: NDArray[np.float64], heading: float) -> NDArray[np.float64]:
    """Return an offset (4, 4), given in axes x right, y forward, z up, in a model frame."""
    axes = vehicle_axes(heading)
    return axes @ offset @ invert(axes)


def _health_of(displacement: NDArray[np.float64]) -> NDArray[np.float32]:
    health: NDArray[np.float32] = (0.5 ** (displacement / HALVING_DISTANCE)).astype(np.float32)
    return health if displacement.any() else uniform_health(1.0)
