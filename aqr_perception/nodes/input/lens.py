"""Pinhole intrinsics from CameraInfo, and removal of lens distortion."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo

from aqr_perception.nodes.input.conversions import Picture
from aqr_perception.nodes.input.message_error import MessageError

_FISHEYE = ("equidistant", "fisheye")
_BROWN_CONRADY = ("", "plumb_bob", "rational_polynomial")
_COEFFICIENTS = (4, 5, 8, 12, 14)
_MAX_STRETCH = 0.02


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


def pinhole_picture(picture: Picture, info: CameraInfo, rectified: bool, topic: str) -> Pinhole:
    """Return an image without lens distortion, and its intrinsics.

    A rectified image uses CameraInfo's P. A raw image is undistorted with K and D and keeps K. CameraInfo describes the
    full resolution; region of interest, binning and the scale of `picture` are applied to it. Pixels scale as in
    image_proc: K times the ratio of the sizes, without a half-pixel shift.

    Args:
        topic: the CameraInfo's topic, for error messages.

    Raises:
        MessageError: the intrinsics are zero or not finite, the distortion model is unknown, or the image's shape
            does not match the CameraInfo.
    """
    matrix, baseline = _projection(info, topic) if rectified else (np.array(info.k).reshape(3, 3), np.zeros(3))
    _check_matrix(matrix, "P" if rectified else "K", topic)
    intrinsics = _to_picture(matrix, info, picture, topic)
    pixels = picture.pixels
    if not rectified and np.any(info.d):
        _check_distortion(info, topic)
        height, width = pixels.shape[:2]
        maps = _undistortion_maps(
            info.distortion_model, tuple(info.d), tuple(intrinsics.reshape(-1).tolist()), (width, height)
        )
        pixels = np.asarray(cv2.remap(pixels, *maps, interpolation=cv2.INTER_LINEAR), np.uint8)
    return Pinhole(pixels, intrinsics, baseline)


def _projection(info: CameraInfo, topic: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Split P = [K' | K' t] into K' and the baseline t."""
    projection = np.array(info.p).reshape(3, 4)
    _check_matrix(projection[:, :3], "P", topic)
    baseline = np.linalg.solve(projection[:, :3], projection[:, 3])
    return projection[:, :3], baseline


def _check_matrix(matrix: NDArray[np.float64], name: str, topic: str) -> None:
    focal = (matrix[0, 0], matrix[1, 1])
    if np.isfinite(matrix).all() and min(focal) > 0 and matrix[2, 2] > 0:
        return
    found = f"{name} with fx = {focal[0]:g}, fy = {focal[1]:g}"
    needed = "positive focal lengths and finite numbers"
    other = "set the camera's `rectified` to false" if name == "P" else "set the camera's `rectified` to true"
    remedy = f"calibrate the camera (camera_calibration), or {other} if the other matrix is filled"
    raise MessageError(topic, "zero intrinsics", found, needed, remedy)


def _to_picture(matrix: NDArray[np.float64], info: CameraInfo, picture: Picture, topic: str) -> NDArray[np.float64]:
    """Adapt a matrix of the full resolution to region of interest, binning and the image's size."""
    binning = (max(info.binning_x, 1), max(info.binning_y, 1))
    roi = (info.roi.width or info.width, info.roi.height or info.height)  # all zero: the full resolution
    sent = picture.full_size
    described = tuple(side // bins if side else size for side, bins, size in zip(roi, binning, sent, strict=True))
    stretch = (sent[0] / described[0]) / (sent[1] / described[1])
    if abs(stretch - 1) > _MAX_STRETCH:
        found = f"{described[0]} x {described[1]} pixels"
        needed = f"the shape of the image, {sent[0]} x {sent[1]}"
        raise MessageError(topic, "wrong image size", found, needed, "check info topic, ROI and binning")
    height, width = picture.pixels.shape[:2]
    scale = np.array([width / described[0] / binning[0], height / described[1] / binning[1]])
    result: NDArray[np.float64] = matrix / matrix[2, 2]
    result[:2, 2] -= (info.roi.x_offset, info.roi.y_offset)
    result[:2] *= scale[:, None]
    return result


def _check_distortion(info: CameraInfo, topic: str) -> None:
    model, count = info.distortion_model, len(info.d)
    finite = np.isfinite(info.d).all()
    if finite and ((model in _FISHEYE and count == 4) or (model in _BROWN_CONRADY and count in _COEFFICIENTS)):
        return
    found = f"distortion_model {model!r} with D = {[float(value) for value in info.d]}"
    needed = "plumb_bob or rational_polynomial with 4, 5, 8, 12 or 14 numbers, or equidistant with 4"
    raise MessageError(topic, "unknown distortion", found, needed, "calibrate the camera, or rectify the images")


@lru_cache(maxsize=32)
def _undistortion_maps(
    model: str, distortion: tuple[float, ...], intrinsics: tuple[float, ...], size: tuple[int, int]
) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """Return OpenCV's fixed-point maps. The undistorted image keeps intrinsics and size of the distorted one."""
    matrix = np.array(intrinsics).reshape(3, 3)
    make_maps = cv2.fisheye.initUndistortRectifyMap if model in _FISHEYE else cv2.initUndistortRectifyMap
    cells, weights = make_maps(matrix, np.array(distortion), np.eye(3), matrix, size, cv2.CV_16SC2)
    return np.asarray(cells, np.int16), np.asarray(weights, np.uint16)
