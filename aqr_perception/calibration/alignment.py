# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rotation of a camera that best explains its pictures by the LiDAR: the maximum of mutual information.

After Pandey, McBride, Savarese and Eustice, "Automatic Targetless Extrinsic Calibration of a 3D Lidar and Camera by
Maximizing Mutual Information" (AAAI 2012), with groups of points and pixels in place of intensity and grey level. The
uncertainty is that of a bootstrap over regions of the image (Efron 1979), because neighbouring points are not
independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from aqr_perception.calibration.appearance import (
    GROUPINGS,
    GROUPS,
    CloudFeatures,
    pixel_features,
    pixel_groups,
    point_groups,
)
from aqr_perception.frame import CameraView
from aqr_perception.geometry import project, transform_points

SPAN = 4.0
"""Largest rotation about each axis that is searched, in degrees."""
_STEP = 0.5
_WIDTH = 480
"""Width of the compared images in pixels."""
_NEAREST, _FURTHEST = 2.5, 80.0
_REGIONS = (6, 4)
"""Columns and rows of the regions of the bootstrap."""
_REPETITIONS = 40
_LARGEST_ROLL = 4.0
_ROLL_PENALTY = 0.006
"""Nats per degree of roll."""
_MOST_POINTS = 8000
"""Points of one picture that are compared."""
_FEWEST_POINTS = 500
_HIDDEN = 1.15
"""A point is hidden if another one beside it in the picture is nearer by this factor."""


@dataclass(frozen=True)
class _Shot:
    """One picture with the points of its sweep in the camera's frame."""

    groups: NDArray[np.intp]
    intrinsics: NDArray[np.float64]
    points: NDArray[np.float64]
    point_groups: NDArray[np.intp]
    regions: NDArray[np.intp]


@dataclass(frozen=True)
class Alignment:
    """The rotation that a camera's calibration lacks.

    Attributes:
        rotation: (3,) rotation vector in degrees along the camera's axes (x right, y down, z forward): the
            camera's true extrinsics are rotation(vector) @ extrinsics.
        spread: degrees; median distance of the bootstrap's estimates from the estimate.
        better: share of the bootstrap's samples in which the estimate explains the pictures better than none.
        gain: mutual information of the estimate minus that of no rotation, in nats per point.
        points: points that were compared.
    """

    rotation: NDArray[np.float64]
    spread: float
    better: float
    gain: float
    points: int

    @property
    def angle(self) -> float:
        """Angle of the rotation in degrees."""
        return float(np.linalg.norm(self.rotation))


def align(views: Sequence[CameraView], clouds: Sequence[NDArray[np.float32]]) -> Alignment | None:
    """Return the rotation that a camera's calibration lacks; None with too few points in its pictures.

    Args:
        views: the camera's pictures.
        clouds: for each picture the points of its sweep (N, 5), in the frame of the view's extrinsics.
    """
    shots = _shots(views, clouds)
    count = sum(len(shot.points) for shot in shots)
    if count < _FEWEST_POINTS:
        return None
    offsets, tables = _grid(shots, 0.0)
    best = _with_roll(shots, offsets[_information(tables.sum(axis=1)).argmax()])
    rotation = _refined(shots, best)
    if abs(rotation[2]) > _STEP / 2:
        offsets, tables = _grid(shots, float(rotation[2]))
    ends = np.stack([_tables(shots, np.zeros(3)), _tables(shots, rotation)])
    distances, wins = [], 0
    by_region, ends_by_region = _region_rows(tables), _region_rows(ends)
    rng = np.random.default_rng(0)
    for _ in range(_REPETITIONS):
        regions = len(by_region)
        weights = np.bincount(rng.integers(regions, size=regions), minlength=regions).astype(np.float32)
        found = offsets[_information((weights @ by_region).reshape(len(offsets), *tables.shape[2:])).argmax()]
        distances.append(np.linalg.norm(found - rotation))
        before, after = _information((weights @ ends_by_region).reshape(2, *tables.shape[2:]))
        wins += int(after > before)
    before, after = _information(ends.sum(axis=1))
    return Alignment(rotation, float(np.median(distances)), wins / _REPETITIONS, float(after - before), count)


def _grid(shots: Sequence[_Shot], roll: float) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return the searched rotations (R, 3) with a roll, and their tables, see `_tables`."""
    steps = np.arange(-SPAN, SPAN + _STEP / 2, _STEP)
    offsets = np.array([(x, y, roll) for x in steps for y in steps])
    return offsets, np.stack([_tables(shots, offset) for offset in offsets])


def _region_rows(tables: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (regions, ...) tables (rotations, regions, ...), one contiguous row a region, for fast weighted sums."""
    return np.ascontiguousarray(np.moveaxis(tables, 1, 0)).reshape(tables.shape[1], -1)


def _with_roll(shots: Sequence[_Shot], start: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the best rotation beside one without roll."""
    near = (-_STEP, 0.0, _STEP)
    rolls = np.arange(-_LARGEST_ROLL, _LARGEST_ROLL + 0.5)
    candidates = np.array([start + np.array([x, y, roll]) for x in near for y in near for roll in rolls])
    return np.asarray(candidates[np.argmax([_score(shots, rotation) for rotation in candidates])], np.float64)


def _refined(shots: Sequence[_Shot], start: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the best rotation between the steps of the search."""
    corners = start + np.array([[0.0, 0, 0], [_STEP, 0, 0], [0, _STEP, 0], [0, 0, _STEP]])
    found = minimize(
        lambda rotation: -_score(shots, np.clip(rotation, start - _STEP, start + _STEP)),
        start,
        method="Nelder-Mead",
        options={"initial_simplex": corners, "xatol": 0.02, "fatol": 1e-5, "maxfev": 120},
    ).x
    return np.asarray(np.clip(found, start - _STEP, start + _STEP), np.float64)


def _score(shots: Sequence[_Shot], rotation: NDArray[np.float64]) -> float:
    """Return the mutual information in nats, less a penalty on the roll, which single pictures hardly show."""
    return float(_information(_tables(shots, rotation).sum(axis=0))) - _ROLL_PENALTY * abs(float(rotation[2]))


def _shots(views: Sequence[CameraView], clouds: Sequence[NDArray[np.float32]]) -> list[_Shot]:
    pictures, parts, seen = [], [], []
    by_cloud: dict[int, tuple[NDArray[np.float32], CloudFeatures]] = {}
    for view, cloud in zip(views, clouds, strict=True):
        if id(cloud) not in by_cloud:
            distances = np.linalg.norm(cloud[:, :3], axis=1)
            kept = cloud[(distances > _NEAREST) & (distances < _FURTHEST)]
            by_cloud[id(cloud)] = kept, CloudFeatures(kept)
        points, features = by_cloud[id(cloud)]
        scale = min(1.0, _WIDTH / view.image.shape[1])
        image = cv2.resize(view.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        intrinsics = np.diag([scale, scale, 1.0]) @ view.intrinsics
        in_camera = transform_points(view.extrinsics, points)
        visible = _visible(in_camera, intrinsics, (image.shape[1], image.shape[0]))
        if len(visible) > _MOST_POINTS:
            visible = np.sort(np.random.default_rng(0).choice(visible, _MOST_POINTS, replace=False))
        pictures.append(pixel_features(image.astype(np.uint8, copy=False)))
        parts.append((intrinsics, in_camera[visible]))
        seen.append(features.at(visible))
    groups = pixel_groups(np.concatenate([picture.reshape(-1, picture.shape[2]) for picture in pictures]))
    if sum(map(len, seen)) < _FEWEST_POINTS:
        return []
    of_points = point_groups(np.concatenate(seen))
    shots, pixel, point = [], 0, 0
    for picture, (intrinsics, in_camera) in zip(pictures, parts, strict=True):
        height, width = picture.shape[:2]
        table = groups[:, pixel : pixel + height * width].reshape(GROUPINGS, height, width)
        labels = of_points[:, point : point + len(in_camera)]
        pixels, _ = project(intrinsics, in_camera)
        columns, rows = (pixels / (width, height) * _REGIONS).astype(np.intp).T
        shots.append(_Shot(table, intrinsics, in_camera, labels, rows * _REGIONS[0] + columns))
        pixel, point = pixel + height * width, point + len(in_camera)
    return shots


def _visible(points: NDArray[np.float64], intrinsics: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.intp]:
    """Return the indices of the points that stay in the picture under every searched rotation and are not hidden."""
    pixels, depths = project(intrinsics, points)
    border = np.tan(np.radians(SPAN)) * np.diag(intrinsics)[:2]
    inside = (depths > 1.0) & ((pixels > border) & (pixels < np.array(size) - border)).all(axis=1)
    indices = np.flatnonzero(inside)
    if len(indices) < 2:
        return indices[:0]
    pixels, depths = pixels[indices], depths[indices]
    reach = float(intrinsics[0, 0] * np.radians(0.5))
    distances, near = cKDTree(pixels).query(pixels, k=[*range(1, min(6, len(pixels)) + 1)])
    nearest = np.where(distances < reach, depths[near], np.inf).min(axis=1)
    seen: NDArray[np.intp] = indices[depths < nearest * _HIDDEN + 0.3]
    return seen


def _tables(shots: Sequence[_Shot], rotation: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return (regions, groupings, groups, groups): how many points of a group hit a pixel of a group when rotated."""
    turn = Rotation.from_rotvec(np.radians(rotation)).as_matrix()
    regions = _REGIONS[0] * _REGIONS[1]
    table = np.zeros(regions * GROUPINGS * GROUPS * GROUPS, np.int64)
    for shot in shots:
        pixels, depths = project(shot.intrinsics, shot.points @ turn.T)
        height, width = shot.groups.shape[1:]
        columns, rows = np.rint(np.nan_to_num(pixels, nan=-1.0, posinf=-1.0, neginf=-1.0)).astype(np.int64).T
        hit = (depths > 0) & (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        begin = (shot.regions[hit] * GROUPINGS + np.arange(GROUPINGS)[:, None]) * GROUPS + shot.point_groups[:, hit]
        cells = begin * GROUPS + shot.groups[:, rows[hit], columns[hit]]
        table += np.bincount(cells.reshape(-1), minlength=len(table))
    return table.reshape(regions, GROUPINGS, GROUPS, GROUPS).astype(np.float32)


def _information(tables: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the mutual information in nats (...) of tables (..., groupings, groups, groups), mean of the groupings."""
    joint = tables / np.maximum(tables.sum(axis=(-2, -1), keepdims=True), 1.0)
    expected = joint.sum(axis=-1, keepdims=True) * joint.sum(axis=-2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(joint > 0, joint * np.log(joint / expected), 0.0)
    information: NDArray[np.float64] = terms.sum(axis=(-2, -1), dtype=np.float64).mean(axis=-1)
    return information
