# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Checks of recorded data: point files, pictures against their calibration, poses, boxes and times.

Each raises the error type that a reader gives, with the file or record, the value found and the value needed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_FURTHEST = 10_000.0
"""Metres; no LiDAR sees as far."""
_MOST_STRETCH = 0.02
"""Largest difference of the ratios of width and height between a picture and its calibration."""
_LARGEST_SIDE = 200.0
_FOCAL_WIDTHS = (0.05, 1000.0)
"""Focal length in image widths."""
_STEP_RANGE = (1e-3, 60.0)
"""Seconds between two keyframes."""


def read_points(path: Path, columns: int, error: type[ValueError]) -> NDArray[np.float32]:
    """Return the (N, columns) little-endian float32 points of a file, x, y, z in metres first."""
    needed = f"float32 (N, {columns})"
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise error(f"{path}: found no readable sweep ({problem}), needed {needed}; unpack the data again") from problem
    if content.startswith((b"# .PCD", b"# .pcd", b"version https://git-lfs")):
        kind = "a Git LFS pointer" if content.startswith(b"version") else "a PCD file"
        raise error(f"{path}: found no readable sweep ({kind}), needed {needed} without a header")
    if not content or len(content) % (4 * columns):
        found = f"{len(content)} bytes, not a multiple of {4 * columns}" if content else "an empty file"
        raise error(f"{path}: found no readable sweep ({found}), needed {needed}; unpack the archive again")
    points = np.frombuffer(content, np.dtype("<f4")).reshape(-1, columns).astype(np.float32)
    finite = np.isfinite(points).all(axis=1)
    if not finite.all():
        raise error(
            f"{path}: found {int((~finite).sum())} of {len(points)} points that are not finite, needed {needed}"
        )
    if (furthest := float(np.abs(points[:, :3]).max())) > _FURTHEST:
        raise error(
            f"{path}: found a coordinate of {furthest:g}, needed metres, at most {_FURTHEST:g}; the file may have "
            f"another number of columns than {columns}"
        )
    return points


def read_picture(path: Path, error: type[ValueError]) -> NDArray[np.uint8]:
    """Return the (H, W, 3) BGR pixels of a picture as they are stored, whatever orientation its EXIF data has."""
    pixels: NDArray[Any] | None = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        needed = "a JPEG or PNG file; unpack the archive again"
        raise error(f"{path}: found no readable image, needed {needed}")
    return pixels.astype(np.uint8, copy=False)


def fitted_intrinsics(
    intrinsics: NDArray[np.float64],
    described: tuple[int, int] | None,
    picture: NDArray[np.uint8],
    path: Path,
    error: type[ValueError],
) -> NDArray[np.float64]:
    """Return the (3, 3) intrinsics of a picture: scaled if it is a smaller or larger copy of the calibrated one.

    Args:
        described: width and height in pixels for which the intrinsics hold; None if unknown. The principal point must
            then lie inside the picture.
    """
    height, width = picture.shape[:2]
    if described is None:
        x, y = float(intrinsics[0, 2]), float(intrinsics[1, 2])
        if not (0.25 * width <= x <= 0.75 * width and 0.15 * height <= y <= 0.85 * height):
            found = f"{width} x {height} pixels with the principal point ({x:g}, {y:g})"
            raise error(f"{path}: found {found}, needed a picture of the calibrated size")
        return intrinsics
    across, down = width / described[0], height / described[1]
    if abs(across / down - 1) > _MOST_STRETCH:
        needed = f"the shape of the calibrated picture, {described[0]} x {described[1]}; do not crop pictures"
        raise error(f"{path}: found {width} x {height} pixels, needed {needed}")
    return np.diag([across, down, 1.0]) @ intrinsics


def pinhole(value: Any, width: float | None, place: str, error: type[ValueError]) -> NDArray[np.float64]:
    """Return a (3, 3) pinhole matrix in pixels.

    Args:
        width: of the image in pixels; None if unknown.
    """
    needed = "[[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels"
    try:
        matrix = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or not np.allclose(matrix[2], (0, 0, 1), atol=1e-6):
        raise error(f"{place}: camera intrinsics: found {str(value)[:100]}, needed {needed}")
    focal = np.array([matrix[0, 0], matrix[1, 1]])
    widths = focal / width if width else focal / 100
    if not ((_FOCAL_WIDTHS[0] <= widths) & (widths <= _FOCAL_WIDTHS[1])).all():
        raise error(f"{place}: camera intrinsics: found focal lengths {focal.tolist()}, needed {needed}")
    return matrix


def check_pose(translation: Any, quaternion: Any, place: str, error: type[ValueError]) -> None:
    """Check a translation (3,) in metres and a unit quaternion (4,)."""
    try:
        numbers = np.array([*translation, *quaternion], np.float64)
    except (TypeError, ValueError):
        numbers = np.zeros(0)
    if numbers.shape == (7,) and np.isfinite(numbers).all() and abs(float(np.linalg.norm(numbers[3:])) - 1) < 0.01:
        return
    found = f"translation {str(translation)[:80]}, rotation {str(quaternion)[:80]}"
    raise error(f"{place}: found {found}, needed three finite numbers in metres and a unit quaternion")


def check_size(size: Sequence[float], place: str, error: type[ValueError]) -> None:
    """Check the sides (3,) of a box in metres."""
    if len(size) == 3 and all(np.isfinite(side) and 0 < side <= _LARGEST_SIDE for side in size):
        return
    needed = f"three sides above 0 and at most {_LARGEST_SIDE:g} m"
    raise error(f"{place}: found the box size {[float(side) for side in size]}, needed {needed}")


def check_steps(stamps: Sequence[int], units: float, place: str, error: type[ValueError]) -> None:
    """Check that the times of a drive's keyframes ascend, in a plausible unit.

    Args:
        stamps: in order.
        units: number of the stamps' units in a second.
    """
    steps = np.diff(np.asarray(stamps, np.int64))
    if not len(steps):
        return
    if (steps <= 0).any():
        first = int(np.flatnonzero(steps <= 0)[0])
        raise error(f"{place}: found the times {stamps[first]} and {stamps[first + 1]}, needed ascending ones")
    middle = float(np.median(steps)) / units
    if not _STEP_RANGE[0] <= middle <= _STEP_RANGE[1]:
        needed = f"times in units of 1/{units:g} s, {_STEP_RANGE[0]:g} to {_STEP_RANGE[1]:g} s between two frames"
        raise error(f"{place}: found {middle:g} s between two frames, needed {needed}")
