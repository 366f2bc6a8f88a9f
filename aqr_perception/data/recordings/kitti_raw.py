# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""KITTI raw drives as recordings (Geiger, Lenz, Stiller and Urtasun, "Vision meets Robotics: The KITTI Dataset", 2013).

DATE_drive_NNNN_sync/ holds velodyne_points/, image_00 .. image_03 and oxts/, each with data/ and timestamps.txt. The
calibration (calib_velo_to_cam.txt, calib_cam_to_cam.txt, calib_imu_to_velo.txt) is in the drive's folder or its parent.
The vehicle's frame is the LiDAR's. Pictures of ``sync`` drives are rectified: P_rect_NN holds.
"""

from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.recordings.recorded_data import (
    Matrix,
    RecordedImage,
    RecordedSweep,
    Recording,
    RecordingError,
)
from aqr_perception.geometry import invert

SWEEPS = "velodyne_points/data"
_EARTH = 6378137.0
"""Equatorial radius in metres, as in the data set's development kit."""
_INTENSITY_SCALE = 255.0


def is_kitti_raw(folder: Path) -> bool:
    """Return whether a folder is a drive of KITTI raw."""
    return (folder / SWEEPS).is_dir()


def read_kitti_raw(folder: Path) -> Recording:
    """Return a drive as a recording, without labels.

    Raises:
        RecordingError: a file is missing or broken, or a sensor has not one timestamp for each file.
    """
    velo_to_cam = _transform(_calibration(folder, "calib_velo_to_cam.txt"), "calib_velo_to_cam.txt")
    cameras = _calibration(folder, "calib_cam_to_cam.txt")
    sweeps = tuple(
        RecordedSweep(stamp, partial(_points, path), np.eye(4))
        for stamp, path in _files(folder / "velodyne_points", (".bin",))
    )
    if not sweeps:
        raise RecordingError(f"{folder / SWEEPS}: found no .bin file, needed sweeps")
    rectify = np.eye(4)
    rectify[:3, :3] = _numbers(cameras, "R_rect_00", 9, "calib_cam_to_cam.txt").reshape(3, 3)
    images: list[RecordedImage] = []
    for directory in sorted(path for path in folder.glob("image_0?") if (path / "data").is_dir()):
        projection = _numbers(cameras, f"P_rect_{directory.name[-2:]}", 12, "calib_cam_to_cam.txt").reshape(3, 4)
        intrinsics = projection[:, :3]
        shift = np.eye(4)
        shift[:3, 3] = np.linalg.solve(intrinsics, projection[:, 3])
        to_vehicle = invert(shift @ rectify @ velo_to_cam)
        for stamp, path in _files(directory, (".png", ".jpg")):
            size = _size(path) if not images or images[-1].camera != directory.name else images[-1].size
            images.append(RecordedImage(directory.name, stamp, path, size, intrinsics, to_vehicle))
    images.sort(key=lambda image: image.stamp_ns)
    poses, notes = _poses(folder)
    return Recording(folder.name, sweeps, tuple(images), poses, notes=tuple(notes))


def _files(sensor: Path, suffixes: tuple[str, ...]) -> list[tuple[int, Path]]:
    """Return stamp and path of each file of a sensor, in order."""
    paths = sorted(path for path in (sensor / "data").glob("*") if path.suffix in suffixes)
    stamps = sensor / "timestamps.txt"
    try:
        lines = [line for line in stamps.read_text().splitlines() if line.strip()]
        times = [_ns(line) for line in lines]
    except (OSError, ValueError) as error:
        needed = "a time such as 2011-09-26 13:02:25.964389445 for each file"
        raise RecordingError(f"{stamps}: found no readable times ({error}), needed {needed}") from error
    indices = [int(path.stem) for path in paths] if all(path.stem.isdecimal() for path in paths) else []
    if len(times) == len(paths):
        chosen = times
    elif indices and max(indices) < len(times):  # files are named by their line; drives lack some sweeps
        chosen = [times[index] for index in indices]
    else:
        raise RecordingError(f"{stamps}: found {len(times)} times, needed {len(paths)}, one for each file in data/")
    return list(zip(chosen, paths, strict=True))


def _ns(line: str) -> int:
    seconds, _, fraction = line.strip().partition(".")
    whole = datetime.strptime(seconds, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc)
    return int(whole.timestamp()) * 1_000_000_000 + int(fraction[:9].ljust(9, "0") or 0)


def _calibration(folder: Path, name: str) -> dict[str, str]:
    for place in (folder, folder.parent):
        if (place / name).is_file():
            lines = (place / name).read_text().splitlines()
            return {key.strip(): value for key, _, value in (line.partition(":") for line in lines)}
    raise RecordingError(f"{folder / name}: found no such file, needed it here or in {folder.parent}; unpack calib.zip")


def _numbers(entries: dict[str, str], key: str, count: int, name: str) -> Matrix:
    try:
        values = np.array([float(value) for value in entries[key].split()], np.float64)
    except (KeyError, ValueError) as error:
        raise RecordingError(f"{name}: found no readable entry {key} ({error}), needed {count} numbers") from error
    if len(values) != count:
        raise RecordingError(f"{name}: found {len(values)} numbers in {key}, needed {count}")
    return values


def _transform(entries: dict[str, str], name: str) -> Matrix:
    matrix = np.eye(4)
    matrix[:3, :3] = _numbers(entries, "R", 9, name).reshape(3, 3)
    matrix[:3, 3] = _numbers(entries, "T", 3, name)
    return matrix


def _points(path: Path) -> NDArray[np.float32]:
    """Return (N, 5): x, y, z, intensity 0..255, ring -1; KITTI stores reflectance 0..1 and no ring."""
    try:
        values = np.fromfile(path, "<f4").reshape(-1, 4)
    except (OSError, ValueError) as error:
        needed = "float32 (N, 4); unpack the archive again"
        raise RecordingError(f"{path}: found no readable sweep ({error}), needed {needed}") from error
    points = np.full((len(values), 5), -1.0, np.float32)
    points[:, :3], points[:, 3] = values[:, :3], values[:, 3] * _INTENSITY_SCALE
    return points


def _size(path: Path) -> tuple[int, int]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise RecordingError(f"{path}: found no readable image, needed a PNG or JPEG file; unpack the archive again")
    return image.shape[1], image.shape[0]


def _poses(folder: Path) -> tuple[dict[int, Matrix], list[str]]:
    """Return the LiDAR's poses from GPS and IMU, in a frame fixed at the first one, as in the development kit."""
    if not (folder / "oxts" / "data").is_dir():
        return {}, ["oxts/ is missing: the vehicle's motion is unknown, and fixed_frame is empty"]
    imu_to_velo = _transform(_calibration(folder, "calib_imu_to_velo.txt"), "calib_imu_to_velo.txt")
    poses: dict[int, Matrix] = {}
    scale, first = 0.0, np.eye(4)
    for stamp, path in _files(folder / "oxts", (".txt",)):
        try:
            values = [float(value) for value in path.read_text().split()]
            latitude, longitude, altitude, roll, pitch, yaw = values[:6]
        except ValueError as error:
            needed = "latitude, longitude, altitude, roll, pitch, yaw, ..."
            raise RecordingError(f"{path}: found no readable numbers ({error}), needed {needed}") from error
        scale = scale or float(np.cos(np.radians(latitude)))
        pose = np.eye(4)
        pose[:3, :3] = _turn(2, yaw) @ _turn(1, pitch) @ _turn(0, roll)
        pose[:3, 3] = (
            scale * np.radians(longitude) * _EARTH,
            scale * _EARTH * np.log(np.tan(np.pi / 4 + np.radians(latitude) / 2)),
            altitude,
        )
        if not poses:
            first = invert(pose)
        poses[stamp] = imu_to_velo @ first @ pose @ invert(imu_to_velo)
    return poses, []


def _turn(axis: int, angle: float) -> Matrix:
    """Return the (3, 3) rotation about a coordinate axis."""
    order: Sequence[int] = [(axis + 1) % 3, (axis + 2) % 3]
    turn = np.eye(3)
    cos, sin = np.cos(angle), np.sin(angle)
    turn[np.ix_(order, order)] = [[cos, -sin], [sin, cos]]
    return turn
