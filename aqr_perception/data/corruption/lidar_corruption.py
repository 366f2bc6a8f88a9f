# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Simulated LiDAR failures: corrupted point clouds and their health.

The kinds of failure follow the robustness benchmarks of camera-LiDAR fusion (arXiv:2205.14951, arXiv:2303.11040) and
MoME (arXiv:2503.19776).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from aqr_perception.data.corruption.lidar_beams import find_beams
from aqr_perception.frame import Frame
from aqr_perception.geometry import invert

REACH = 60.0
"""Half the edge length in metres of the square health grid."""
CELLS = 120
"""Rows and columns of the health grid."""

MAX_NOISE = 0.5
"""Standard deviation in metres of the points' noise at severity 1."""
_FEW_BEAMS = 4
_LOSS = 0.9
"""Health lost at severity 1; less than 1, because the point cloud still shows more than no LiDAR."""


class CorruptedCloud(NamedTuple):
    """A failing LiDAR's points (N, 5) or None, and health (`CELLS`, `CELLS`) float32 in 0..1, rows y, columns x."""

    points: NDArray[np.float32] | None
    health: NDArray[np.float32]


def gone() -> CorruptedCloud:
    """Return None instead of points, which differs from an empty point cloud."""
    return CorruptedCloud(None, uniform_health(0.0))


def few_beams(points: NDArray[np.float32], rng: Generator) -> CorruptedCloud:
    """Return the points of four randomly drawn beams."""
    beams = find_beams(points)
    kept = rng.choice(len(beams.elevations), min(_FEW_BEAMS, len(beams.elevations)), replace=False)
    return _with_beams(points, beams.of_point, kept, len(beams.elevations))


def beams_nearest(points: NDArray[np.float32], elevations: ArrayLike) -> CorruptedCloud:
    """Return the points of the beams nearest to some elevations in degrees, a different beam for each elevation."""
    beams = find_beams(points)
    kept: list[int] = []
    for elevation in np.asarray(elevations, dtype=np.float64):
        by_distance = np.argsort(np.abs(beams.elevations - elevation), kind="stable")
        kept += [int(beam) for beam in by_distance if beam not in kept][:1]
    return _with_beams(points, beams.of_point, np.array(kept, np.int64), len(beams.elevations))


def evenly_spread_beams(points: NDArray[np.float32], count: int) -> CorruptedCloud:
    """Return the points of `count` beams spread evenly from the second lowest upwards; all points if there are no more.

    Of B beams, counted from the lowest, those with the numbers floor(k B / count) + 1 are kept, k = 0 .. count - 1.
    """
    beams = find_beams(points)
    found = len(beams.elevations)
    if found <= count:
        return CorruptedCloud(points, uniform_health(1.0))
    return _with_beams(points, beams.of_point, np.arange(count) * found // count + 1, found)


def limited_field_of_view(points: NDArray[np.float32], heading: float, half_angle: float) -> CorruptedCloud:
    """Return the points of a sector: `half_angle` to either side of azimuth `heading`, in radians, model frame."""
    x, y = cell_centres()
    return CorruptedCloud(
        points[_in_sector(points[:, 0], points[:, 1], heading, half_angle)],
        _in_sector(x, y, heading, half_angle).astype(np.float32),
    )


def without_objects(points: NDArray[np.float32], boxes: NDArray[np.float32]) -> CorruptedCloud:
    """Return the point cloud without points in (M, 9) boxes (dark or wet surfaces), with health 0 in and around them.

    This includes the points of past sweeps at the object's past position.
    """
    velocity = np.nan_to_num(boxes[:, 7:9])
    removed = np.zeros(len(points), bool)
    for box, speed in zip(boxes, velocity, strict=True):
        removed[points_in_box(points, box, margin=0.1)] = True
        if speed.any() and points[:, 4].any():
            removed[points_in_box(moved_with_object(points, speed), box, margin=0.1)] = True
    health = uniform_health(1.0)
    x, y = cell_centres()
    centres = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=-1)
    for box in boxes:
        # A margin of one cell gives small objects a cell even on a coarser grid.
        on_ground = np.array([*box[:2], 0.0, *box[3:5], 1.0, box[6]])
        health.ravel()[points_in_box(centres, on_ground, margin=2 * REACH / CELLS)] = 0.0
    return CorruptedCloud(points[~removed], health)


def noisy(points: NDArray[np.float32], severity: float, rng: Generator) -> CorruptedCloud:
    """Return the points with Gaussian noise of up to `MAX_NOISE` on each axis (rain, vibration); severity in 0..1."""
    moved = points.copy()
    moved[:, :3] += rng.standard_normal((len(points), 3), dtype=np.float32) * np.float32(MAX_NOISE * severity)
    return CorruptedCloud(moved, uniform_health(1.0 - _LOSS * severity))


def moved_with_object(points: NDArray[np.float32], velocity: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (N, 3) the points (N, 5), those of past sweeps moved by an object's velocity to its current position."""
    moved: NDArray[np.float32] = points[:, :3].copy()
    moved[:, :2] += points[:, 4:5] * velocity
    return moved


def points_in_box(points: NDArray[Any], box: NDArray[Any], margin: float = 0.0) -> NDArray[np.int64]:
    """Return the indices of (N, >=3) points in a box (x, y, z, length, width, height, yaw, ...) grown by a margin."""
    half = np.asarray(box[3:6], dtype=np.float64) / 2 + margin
    radius = float(np.hypot(half[0], half[1]))
    # Two comparisons exclude most points before the exact test.
    near = np.flatnonzero((np.abs(points[:, 0] - box[0]) <= radius) & (np.abs(points[:, 1] - box[1]) <= radius))
    x, y, z = (points[near, :3] - np.asarray(box[:3], dtype=np.float64)).T
    cos, sin = np.cos(box[6]), np.sin(box[6])
    inside = (np.abs(x * cos + y * sin) <= half[0]) & (np.abs(y * cos - x * sin) <= half[1]) & (np.abs(z) <= half[2])
    indices: NDArray[np.int64] = near[inside]
    return indices


def forward_heading(frame: Frame) -> float:
    """Return the azimuth in radians, model frame, of the front camera's optical axis.

    The LiDAR's axes do not determine the front (+y for nuScenes' LiDAR). The front camera has ``front`` and no side in
    its name; without such a camera, +x is the front (REP-103).
    """
    for view in frame.cameras:
        name = view.name.lower()
        if "front" in name and "left" not in name and "right" not in name:
            axis = invert(view.extrinsics)[:3, 2]
            return float(np.arctan2(axis[1], axis[0]))
    return 0.0


def _with_beams(
    points: NDArray[np.float32], beam: NDArray[np.int64], kept: NDArray[np.int64], beams: int
) -> CorruptedCloud:
    # The square root falls slowly at first: a quarter of the beams still outlines most objects.
    return CorruptedCloud(points[np.isin(beam, kept)], uniform_health(float(np.sqrt(len(kept) / max(beams, 1)))))


def uniform_health(health: float) -> NDArray[np.float32]:
    """Return a health grid with one value."""
    return np.full((CELLS, CELLS), health, np.float32)


def cell_centres() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the x and y (`CELLS`, `CELLS`) of the health cells' centres in metres."""
    steps = (np.arange(CELLS) + 0.5) * (2 * REACH / CELLS) - REACH
    x, y = np.meshgrid(steps, steps)
    return x, y


def _in_sector(x: NDArray[Any], y: NDArray[Any], heading: float, half_angle: float) -> NDArray[np.bool_]:
    offset = np.angle(np.exp(1j * (np.arctan2(y, x).astype(np.float64) - heading)))
    inside: NDArray[np.bool_] = np.abs(offset) <= half_angle
    return inside
