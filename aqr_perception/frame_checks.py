# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Check of a `Frame` before detection: shapes, types, finite numbers and ranges of values."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import CameraView, Frame

_FURTHEST_POINT = 20_000.0
"""Metres; twice the range of any LiDAR."""
_FURTHEST_CAMERA = 100.0
"""Metres; the longest vehicles are shorter."""
_LONGEST_LAG = 5.0
"""Seconds; ten sweeps of a slow LiDAR take less."""
_MOST_INTENSE = 65_535.0
"""That of 16-bit integers without a scale; models bear a few of them, and the node warns of them."""
_FEWEST_RINGS = 4
_WIDEST_VIEW = 50.0
"""Largest ratio of an image's width to its focal length: 178 degrees."""
_ROTATION_TOLERANCE = 1e-2


class FrameError(ValueError):
    """A frame has a wrong shape, type or value; the message names the field, the value found and the value needed."""

    def __init__(self, field: str, found: object, needed: str) -> None:
        super().__init__(f"{field}: found {found}, needed {needed}")


def usable_frame(frame: Frame, cameras: bool = True, lidar: bool = True) -> tuple[Frame, tuple[FrameError, ...]]:
    """Return a frame without the cameras whose numbers are not finite, and an error for each of them.

    A frame whose cameras are all usable comes back as it is, the same object.

    Args:
        cameras, lidar: whether the sensors are used. Unused ones are not checked.

    Raises:
        FrameError: a field is of a wrong shape, type or range, or no sensor is left.
    """
    _check_moment(frame)
    if lidar and frame.points is not None:
        _check_points(frame.points)
    if not cameras:
        return frame, ()
    names = [view.name for view in frame.cameras]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise FrameError("cameras", f"two of the name {name!r}", "a name of its own for each")
    problems = {view.name: problem for view in frame.cameras if (problem := _view_problem(view)) is not None}
    if not problems:
        return frame, ()
    left = tuple(view for view in frame.cameras if view.name not in problems)
    if not left and (frame.points is None or not lidar):
        raise next(iter(problems.values()))
    return replace(frame, cameras=left), tuple(problems.values())


def _check_moment(frame: Frame) -> None:
    if not isinstance(frame.stamp_ns, (int, np.integer)) or isinstance(frame.stamp_ns, bool):
        raise FrameError("stamp_ns", repr(frame.stamp_ns), "a whole number of nanoseconds")
    if frame.to_fixed is not None:
        _check_matrix("to_fixed", frame.to_fixed, (4, 4))
        if not np.isfinite(frame.to_fixed).all():
            raise FrameError("to_fixed", "numbers that are not finite", "a finite (4, 4) matrix, or None if unknown")
        _check_rigid("to_fixed", frame.to_fixed)


def _check_points(points: NDArray[np.float32]) -> None:
    needed = "a (N, 5) float32 array: x, y, z in metres, intensity 0..255, age in seconds"
    if not isinstance(points, np.ndarray) or points.ndim != 2 or points.shape[1] != 5 or points.dtype != np.float32:
        raise FrameError("points", _described(points), needed)
    if not len(points):
        return
    low, high = points.min(axis=0), points.max(axis=0)  # NaN if there is one
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        count = int((~np.isfinite(points).all(axis=1)).sum())
        raise FrameError("points", f"{count} of {len(points)} that are not finite", "finite numbers: drop the others")
    if (furthest := float(np.maximum(-low[:3], high[:3]).max())) > _FURTHEST_POINT:
        raise FrameError("points[:, :3]", f"a coordinate of {furthest:g}", f"metres, at most {_FURTHEST_POINT:g}")
    if max(-float(low[3]), float(high[3])) > _MOST_INTENSE:
        raise FrameError("points[:, 3]", f"{low[3]:g} to {high[3]:g}", "intensities scaled to 0..255")
    _check_lags(points[:, 4], float(low[4]), float(high[4]))


def _check_lags(lags: NDArray[np.float32], low: float, high: float) -> None:
    """Check the age of points: a ring index in its place is the usual mistake."""
    needed = f"the age of each point in seconds, 0 to {_LONGEST_LAG:g}"
    if low < -_LONGEST_LAG or high > _LONGEST_LAG:
        raise FrameError("points[:, 4]", f"{low:g} to {high:g}", needed)
    if high >= _FEWEST_RINGS - 1 and not np.mod(lags, 1.0).any():
        raise FrameError("points[:, 4]", f"whole numbers from {low:g} to {high:g}, as of a ring index", needed)


def _view_problem(view: CameraView) -> FrameError | None:
    """Return an error if a camera's numbers are not finite; raise one if they are of a wrong shape, type or range."""
    field = f"cameras[{view.name!r}]"
    image = view.image
    needed = "a (H, W, 3) uint8 array, BGR in 0..255"
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise FrameError(f"{field}.image", _described(image), needed)
    if 0 in image.shape:
        raise FrameError(f"{field}.image", _described(image), "at least one pixel")
    matrices: Sequence[tuple[str, Any, tuple[int, int]]] = (
        ("intrinsics", view.intrinsics, (3, 3)),
        ("extrinsics", view.extrinsics, (4, 4)),
    )
    for name, matrix, shape in matrices:
        _check_matrix(f"{field}.{name}", matrix, shape)
    for name, matrix, _ in matrices:
        if not np.isfinite(matrix).all():
            return FrameError(f"{field}.{name}", "numbers that are not finite", "finite ones; the camera is left out")
    if not math.isfinite(view.age):
        return FrameError(f"{field}.age", view.age, "seconds; the camera is left out")
    _check_pinhole(f"{field}.intrinsics", view.intrinsics, image.shape[1], image.shape[0])
    _check_rigid(f"{field}.extrinsics", view.extrinsics)
    distance = float(np.linalg.norm(view.extrinsics[:3, 3]))
    if distance > _FURTHEST_CAMERA:
        needed = f"model frame -> camera frame, at most {_FURTHEST_CAMERA:g} m apart"
        raise FrameError(f"{field}.extrinsics", f"a translation of {distance:g} m", needed)
    return None


def _check_pinhole(field: str, intrinsics: NDArray[np.float64], width: int, height: int) -> None:
    focal = (float(intrinsics[0, 0]), float(intrinsics[1, 1]))
    if not np.allclose(intrinsics[2], (0.0, 0.0, 1.0), atol=1e-6):
        raise FrameError(field, f"a last row of {intrinsics[2].tolist()}", "(0, 0, 1)")
    if min(focal[0] / width, focal[1] / height) < 1 / _WIDEST_VIEW:
        needed = f"a pinhole matrix in pixels of the image, {width} x {height}"
        raise FrameError(field, f"focal lengths of {focal[0]:g} and {focal[1]:g}", needed)


def _check_matrix(field: str, matrix: object, shape: tuple[int, int]) -> None:
    if not isinstance(matrix, np.ndarray) or matrix.shape != shape or not np.issubdtype(matrix.dtype, np.floating):
        raise FrameError(field, _described(matrix), f"a {shape} float64 array")


def _check_rigid(field: str, matrix: NDArray[np.float64]) -> None:
    for problem in _rigid_problems(np.asarray(matrix, np.float64)):
        raise FrameError(field, problem, "a rigid transform: a rotation and a translation above (0, 0, 0, 1)")


def _rigid_problems(matrix: NDArray[np.float64]) -> Iterator[str]:
    if not np.allclose(matrix[3], (0.0, 0.0, 0.0, 1.0), atol=1e-6):
        yield f"a last row of {matrix[3].tolist()}"
    rotation = matrix[:3, :3]
    error = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if error > _ROTATION_TOLERANCE:
        yield f"a rotation that is not orthonormal, by {error:.3g}"
    elif np.linalg.det(rotation) < 0:
        yield "a reflection in place of a rotation"


def _described(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}, {value.dtype}"
    return f"{type(value).__name__}"
