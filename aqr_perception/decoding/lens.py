# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pinhole intrinsics from CameraInfo, and removal of lens distortion."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.byte_cache import ByteCache
from aqr_perception.decoding.camera_images import Picture, check_shape
from aqr_perception.decoding.message_error import MessageError
from aqr_perception.stage_clock import measured

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo

_FISHEYE = ("equidistant", "fisheye")
_BROWN_CONRADY = ("", "plumb_bob", "rational_polynomial")
_COEFFICIENTS = (0, 4, 5, 8, 12, 14)
_FOCAL_RANGE = (0.05, 1000.0)
"""Focal length in image widths: fields of view from 168 to 0.06 degrees."""
_FURTHEST_CENTRE = 10.0
"""Largest distance of the principal point from the image's corner, in image widths."""
_LARGEST_REST = 1e-3
"""Largest number where an intrinsic matrix has zeros; rounding leaves less."""
_LONGEST_BASELINE = 10.0
"""Metres; the longest stereo cameras on vehicles have about one."""
_SHORTEST_BASELINE = 1e-3
_VIEW_SIDE = 512
_MOST_PIXELS = 3 << 23
"""Most pixels of an image that is undistorted, 25 million: maps and result take nine bytes for each."""
_SMALLEST_VIEW = 0.25
"""Smallest share of undistorted pixels that lie in the distorted image. With wrong coefficients it is about 0."""


@dataclass(frozen=True)
class Pinhole:
    """An image of a pinhole camera.

    Attributes:
        pixels: (H, W, 3) uint8, BGR, without lens distortion.
        intrinsics: (3, 3) float64, pinhole matrix in units of `pixels`.
        baseline: (3,) float64, offset in metres to add to points in the optical frame before projection. It is zero
            except for the right camera of a rectified stereo pair: its CameraInfo refers to the left camera.
    """

    pixels: NDArray[np.uint8]
    intrinsics: NDArray[np.float64]
    baseline: NDArray[np.float64]


def described_size(info: "CameraInfo", topic: str) -> tuple[int, int]:
    """Return width and height in pixels of the images that a CameraInfo describes; 0 where it does not say.

    CameraInfo gives the full resolution; region of interest and binning are applied to it.

    Raises:
        MessageError: the region of interest is outside the image, or less than a pixel remains.
    """
    roi = info.roi
    sides = []
    for full, offset, part, binning in (
        (info.width, roi.x_offset, roi.width, info.binning_x),
        (info.height, roi.y_offset, roi.height, info.binning_y),
    ):
        side = part or full  # all zero: the full resolution
        if (full and offset + part > full) or (side and side < binning):
            found = f"{info.width} x {info.height}, ROI {roi.width} x {roi.height} at ({roi.x_offset}, {roi.y_offset})"
            found += f", binning {info.binning_x} x {info.binning_y}"
            needed = "a region inside the image with at least one binned pixel"
            raise MessageError(topic, "wrong image size", found, needed, "check the camera's driver")
        sides.append(side // max(binning, 1))
    return sides[0], sides[1]


@measured("rectify")
def pinhole_picture(
    picture: Picture,
    info: "CameraInfo",
    rectified: bool,
    topic: str,
    baseline_in_tf: bool = False,
    doubts: list[MessageError] | None = None,
) -> Pinhole:
    """Return an image without lens distortion, and its intrinsics.

    A rectified image uses CameraInfo's P. A raw image is undistorted with K, D and R, and keeps K. CameraInfo describes
    the full resolution; region of interest, binning and the scale of `picture` are applied to it. Pixels scale as in
    image_proc: K times the ratio of the sizes, without a half-pixel shift.

    Args:
        topic: the CameraInfo's topic, for error messages.
        baseline_in_tf: whether TF places the camera itself. Then P's baseline is not applied a second time.
        doubts: receives what is odd about a CameraInfo that is usable nevertheless.

    Raises:
        MessageError: the intrinsics are zero, not finite or absurd, the distortion model is unknown, or the image's
            shape does not match the CameraInfo.
    """
    doubts = [] if doubts is None else doubts
    described = described_size(info, topic)
    check_shape(picture.full_size, described, topic)
    if 0 not in described and picture.full_size != described:
        found, needed = "{} x {} pixels".format(*described), "the image's size, {} x {}".format(*picture.full_size)
        remedy = "the intrinsics are scaled; if the image is cropped instead, give its ROI"
        doubts.append(MessageError(topic, "camera_info of another size", found, needed, remedy))
    binning = (max(info.binning_x, 1), max(info.binning_y, 1))
    full_width = info.width or picture.full_size[0] * binning[0]
    name, matrix = ("P", np.array(info.p).reshape(3, 4)) if rectified else ("K", np.array(info.k).reshape(3, 3))
    _check_matrix(matrix[:, :3], name, full_width, topic)
    intrinsics = _to_picture(matrix[:, :3], info, picture, described, binning)
    pixels = picture.pixels
    if not rectified:
        pixels = _undistorted(pixels, info, intrinsics, topic)
    if rectified:
        return Pinhole(pixels, intrinsics, _baseline(matrix, info, baseline_in_tf, topic, doubts))
    return Pinhole(pixels, intrinsics, np.zeros(3))


def _check_matrix(matrix: NDArray[np.float64], name: str, full_width: int, topic: str) -> None:
    """Check a matrix [fx s cx; 0 fy cy; 0 0 w] of an image that is `full_width` pixels wide."""
    focal = (matrix[0, 0], matrix[1, 1])
    other = "set the camera's `rectified` to false" if name == "P" else "set the camera's `rectified` to true"
    remedy = f"calibrate the camera (camera_calibration), or {other} if the other matrix is filled"
    if not (np.isfinite(matrix).all() and min(focal) > 0 and matrix[2, 2] > 0):
        found = f"{name} with fx = {focal[0]:g}, fy = {focal[1]:g}"
        raise MessageError(topic, "zero intrinsics", found, "positive focal lengths and finite numbers", remedy)
    with np.errstate(over="ignore"):
        scaled = matrix / matrix[2, 2]
    widths = np.abs(scaled[:2, :2].diagonal()) / full_width
    centre = np.abs(np.r_[scaled[0, 1:], scaled[1, 2]]) / full_width
    below = np.abs([matrix[1, 0], matrix[2, 0], matrix[2, 1]]).max() / matrix[2, 2]
    low, high = _FOCAL_RANGE
    if (
        (low <= widths).all()
        and (widths <= high).all()
        and (centre <= _FURTHEST_CENTRE).all()
        and below <= _LARGEST_REST
    ):
        return
    found = f"{name} = {[[float(f'{value:.6g}') for value in row] for row in matrix]}"
    needed = f"[fx s cx; 0 fy cy; 0 0 1] with fx and fy of {low} to {high:g} times the width, {full_width} pixels"
    raise MessageError(topic, "implausible intrinsics", found, needed, remedy)


def _baseline(
    projection: NDArray[np.float64], info: "CameraInfo", in_tf: bool, topic: str, doubts: list[MessageError]
) -> NDArray[np.float64]:
    """Return t of P = [K' | K' t]; zero if TF holds it."""
    baseline = np.asarray(np.linalg.solve(projection[:, :3], projection[:, 3]), np.float64)
    length = float(np.linalg.norm(baseline))
    if not length <= _LONGEST_BASELINE:  # also NaN
        found = f"P with the last column {projection[:, 3].tolist()}, a baseline of {length:g} m"
        needed = f"at most {_LONGEST_BASELINE:g} m"
        raise MessageError(topic, "implausible baseline", found, needed, "calibrate the camera")
    if in_tf or length < _SHORTEST_BASELINE:
        return np.zeros(3)
    found = f"P that shifts the camera by {length:.3f} m from its TF frame {info.header.frame_id!r}"
    needed = "the frame of the left camera of the stereo pair"
    remedy = "if TF places this camera itself, set its `baseline_in_tf` to true, otherwise the shift counts twice"
    doubts.append(MessageError(topic, "baseline in camera_info", found, needed, remedy))
    return baseline


def _to_picture(
    matrix: NDArray[np.float64],
    info: "CameraInfo",
    picture: Picture,
    described: tuple[int, int],
    binning: tuple[int, int],
) -> NDArray[np.float64]:
    """Adapt a matrix of the full resolution to region of interest, binning and the image's size."""
    known = [side or size for side, size in zip(described, picture.full_size, strict=True)]
    height, width = picture.pixels.shape[:2]
    scale = np.array([width / known[0] / binning[0], height / known[1] / binning[1]])
    result: NDArray[np.float64] = matrix / matrix[2, 2]
    result[:2, 2] -= (info.roi.x_offset, info.roi.y_offset)
    result[:2] *= scale[:, None]
    return result


def _undistorted(
    pixels: NDArray[np.uint8], info: "CameraInfo", intrinsics: NDArray[np.float64], topic: str
) -> NDArray[np.uint8]:
    """Return a raw image as a pinhole camera with the same intrinsics sees it, turned by R as in stereo rectification.

    TF places the rectified camera: R turns the raw camera's axes to its axes.
    """
    rotation = _rotation(info, topic)
    _check_distortion(info, topic)
    coefficients = tuple(info.d) or (0.0,) * 4
    if info.distortion_model not in _FISHEYE and not any(coefficients) and np.array_equal(rotation, np.eye(3)):
        return pixels
    if (count := pixels.shape[0] * pixels.shape[1]) > _MOST_PIXELS:
        needed, remedy = f"at most {_MOST_PIXELS} with distortion", "rectify the images, or publish smaller ones"
        raise MessageError(topic, "image too large to undistort", f"{count} pixels", needed, remedy)
    lens = _Lens(info.distortion_model in _FISHEYE, coefficients, tuple(rotation.reshape(-1).tolist()))
    height, width = pixels.shape[:2]
    cells, weights, view = _kept_maps(lens, tuple(intrinsics.reshape(-1).tolist()), (width, height))
    if view < _SMALLEST_VIEW:
        found = f"D = {list(coefficients)} and R, with which {100 * view:.0f} % of the image's pixels are in view"
        needed = f"at least {100 * _SMALLEST_VIEW:.0f} %"
        raise MessageError(topic, "implausible distortion", found, needed, "calibrate the camera")
    return np.asarray(cv2.remap(pixels, cells, weights, interpolation=cv2.INTER_LINEAR), np.uint8)


def _rotation(info: "CameraInfo", topic: str) -> NDArray[np.float64]:
    """Return R, (3, 3); the identity if it is not filled."""
    rotation = np.array(info.r).reshape(3, 3)
    if not rotation.any():
        return np.eye(3)
    if np.isfinite(rotation).all() and np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-2 and rotation[2, 2] > 0.5:
        return rotation
    found, needed = f"R = {rotation.tolist()}", "a rotation of at most 60 degrees"
    raise MessageError(topic, "implausible rectification", found, needed, "calibrate the camera")


def _check_distortion(info: "CameraInfo", topic: str) -> None:
    model, count = info.distortion_model, len(info.d)
    known = (model in _FISHEYE and count in (0, 4)) or (model in _BROWN_CONRADY and count in _COEFFICIENTS)
    if known and np.isfinite(info.d).all():
        return
    found = f"distortion_model {model!r} with D = {[float(value) for value in info.d[:15]]} ({count} numbers)"
    needed = "plumb_bob or rational_polynomial with 4, 5, 8, 12 or 14 numbers, or equidistant with 4"
    raise MessageError(topic, "unknown distortion", found, needed, "calibrate the camera, or rectify the images")


class _Lens(NamedTuple):
    """Distortion coefficients of a fisheye or Brown-Conrady lens, and R row by row."""

    fisheye: bool
    coefficients: tuple[float, ...]
    rotation: tuple[float, ...]


class _Maps(NamedTuple):
    """OpenCV's fixed-point maps, and the share of the pixels that they take from inside the image."""

    cells: NDArray[np.int16]
    weights: NDArray[np.uint16]
    view: float


_MOST_MAP_BYTES = 384 * 2**20
"""Room for the maps of seven 4K cameras, at 6 bytes a pixel."""

_maps: ByteCache[tuple[object, ...], _Maps] = ByteCache(
    _MOST_MAP_BYTES, lambda _, maps: maps.cells.nbytes + maps.weights.nbytes
)


def _kept_maps(lens: _Lens, intrinsics: tuple[float, ...], size: tuple[int, int]) -> _Maps:
    """Return `_undistortion_maps`, computed once a camera."""
    key = (lens, intrinsics, size)
    maps = _maps.get(key)
    if maps is None:
        maps = _undistortion_maps(lens, intrinsics, size)
        _maps.put(key, maps)
    return maps


def _undistortion_maps(lens: _Lens, intrinsics: tuple[float, ...], size: tuple[int, int]) -> _Maps:
    """Return the maps of a lens.

    The undistorted image keeps intrinsics and size of the distorted one.
    """
    matrix, rotation = np.array(intrinsics).reshape(3, 3), np.array(lens.rotation).reshape(3, 3)
    make_maps = cv2.fisheye.initUndistortRectifyMap if lens.fisheye else cv2.initUndistortRectifyMap
    coefficients = np.array(lens.coefficients)
    cells, weights = make_maps(matrix, coefficients, rotation, matrix, size, cv2.CV_16SC2)
    # Fixed-point maps hide numbers that are not finite. Maps in numbers are eight bytes a pixel, so those of a smaller
    # image stand for them: the lens does not depend on the scale.
    factor = max(1.0, max(size) / _VIEW_SIDE)
    small = (max(1, round(size[0] / factor)), max(1, round(size[1] / factor)))
    reduced = np.diag([small[0] / size[0], small[1] / size[1], 1.0]) @ matrix
    columns, rows = make_maps(reduced, coefficients, rotation, reduced, small, cv2.CV_32FC1)
    inside = (columns > -1) & (columns < small[0]) & (rows > -1) & (rows < small[1])
    return _Maps(np.asarray(cells, np.int16), np.asarray(weights, np.uint16), float(inside.mean()))
