# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Check of every camera of a recording: the rotation that its calibration lacks, and whether it is certain."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from aqr_perception.calibration.alignment import Alignment, align
from aqr_perception.frame import CameraView, Frame
from aqr_perception.geometry import project, transform_points

Verdict = Literal["fits", "off", "unclear"]
_LEAST_ANGLES = ((8000, 0.6), (0, 1.5))
"""Compared points, and degrees below which an estimate from as many is within the method's own error.

Measured on well-calibrated real cameras: at most 0.30 degrees with 10,000 to 24,000 points, 0.5 to 1.1 with 2,000 to
4,500.
"""
_LARGEST_SPREAD = 0.75
"""Largest spread in degrees of an estimate that says anything."""
_LEAST_BETTER = 0.9


@dataclass(frozen=True)
class CameraCheck:
    """The finding about one camera.

    Attributes:
        verdict: ``off``: the rotation is certain and too large; ``fits``: a rotation would have been found, and none
            is; ``unclear``: pictures and points do not show it, for example because they are few.
        alignment: the estimate; None with too few points in the pictures.
        shift: median distance in pixels by which the estimate moves the points in the picture; 0 without an estimate.
        frames: pictures that were compared.
    """

    camera: str
    verdict: Verdict
    alignment: Alignment | None
    shift: float
    frames: int


@dataclass
class _Shots:
    views: list[CameraView]
    clouds: list[NDArray[np.float32]]


def check_calibration(frames: Iterable[Frame]) -> Iterator[CameraCheck]:
    """Yield the finding about each camera, in the order of the frames.

    Args:
        frames: single sweeps with their images and the extrinsics to check, at least one; three or more tell more.
    """
    shots: dict[str, _Shots] = {}
    for frame in frames:
        if frame.points is None:
            continue
        for view in frame.cameras:
            of_camera = shots.setdefault(view.name, _Shots([], []))
            of_camera.views.append(view)
            of_camera.clouds.append(frame.points)
    for name, of_camera in shots.items():
        alignment = align(of_camera.views, of_camera.clouds)
        shift = 0.0 if alignment is None else _shift(of_camera.views[0], of_camera.clouds[0], alignment.rotation)
        yield CameraCheck(name, verdict(alignment), alignment, shift, len(of_camera.views))


def verdict(alignment: Alignment | None) -> Verdict:
    """Return the verdict about an estimate."""
    if alignment is None or alignment.spread > _LARGEST_SPREAD:
        return "unclear"
    if alignment.angle < least_angle(alignment.points):
        return "fits"
    return "off" if alignment.better >= _LEAST_BETTER else "unclear"


def least_angle(points: int) -> float:
    """Return the angle in degrees from which an estimate with a number of points counts."""
    return next(angle for least, angle in _LEAST_ANGLES if points >= least)


def corrected(view: CameraView, rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (4, 4) extrinsics of a view after a rotation (3,) in degrees along the camera's axes."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(np.radians(rotation)).as_matrix()
    matrix: NDArray[np.float64] = turn @ view.extrinsics
    return matrix


def _shift(view: CameraView, cloud: NDArray[np.float32], rotation: NDArray[np.float64]) -> float:
    before, depths = project(view.intrinsics, transform_points(view.extrinsics, cloud))
    after, _ = project(view.intrinsics, transform_points(corrected(view, rotation), cloud))
    height, width = view.image.shape[:2]
    seen = (depths > 1.0) & (before >= 0).all(axis=1) & (before < (width, height)).all(axis=1)
    return float(np.median(np.linalg.norm(after[seen] - before[seen], axis=1))) if seen.any() else 0.0
