# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Frames in the layout of KITTI's object benchmark (Geiger, Lenz and Urtasun, CVPR 2012).

training/ holds velodyne/NNNNNN.bin (float32 x, y, z, reflectance 0..1), image_2/NNNNNN.png, calib/NNNNNN.txt and
label_2/NNNNNN.txt (type, truncation, occlusion, alpha, 2D box, height, width, length, x, y, z of the bottom's centre in
the rectified camera frame, rotation about its y axis). The frames are unrelated: stamps are nominal, and the vehicle's
motion is unknown. Only what image_2 shows is labelled.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.recordings.recorded_data import (
    LabelledObject,
    Labels,
    Matrix,
    RecordedImage,
    RecordedSweep,
    Recording,
    RecordingError,
)
from aqr_perception.data.sources.record_checks import check_size, fitted_intrinsics, pinhole, read_picture, read_points
from aqr_perception.geometry import invert

KITTI_CLASSES: Mapping[str, str] = {
    "Car": "car",
    "Van": "car",
    "Truck": "truck",
    "Pedestrian": "pedestrian",
    "Person_sitting": "pedestrian",
    "Cyclist": "bicycle",
}
"""KITTI's classes with a counterpart among nuScenes'; Tram and Misc keep their name."""
_IGNORED = "DontCare"
_CAMERA = "image_2"
_STEP_NS = 100_000_000
_FIELDS = 15
"""Numbers and words of a label; a sixteenth is a score."""


def is_kitti_object(folder: Path) -> bool:
    """Return whether a folder, or its ``training``, has the layout of KITTI's object benchmark."""
    return (_part(folder) / "velodyne").is_dir() and (_part(folder) / "calib").is_dir()


def kitti_frames(folder: Path, split: str | None = None) -> list[str]:
    """Return the numbers of the frames, those of ``ImageSets/SPLIT.txt`` where it exists.

    Raises:
        RecordingError: there is no frame, or the split names one that does not exist.
    """
    part = _part(folder)
    found = sorted(path.stem for path in (part / "velodyne").glob("*.bin"))
    file = folder / "ImageSets" / f"{split}.txt"
    if split is not None and file.is_file():
        wanted = file.read_text().split()
        missing = sorted(set(wanted) - set(found))
        if missing:
            listed = ", ".join(missing[:5])
            raise RecordingError(f"{file}: found frames without a sweep, {listed}, needed {part}/velodyne/NUMBER.bin")
        found = wanted
    if not found:
        raise RecordingError(f"{part / 'velodyne'}: found no .bin file, needed sweeps")
    return found


def read_kitti_object(folder: Path, number: str, classes: Mapping[str, str] = KITTI_CLASSES) -> Recording:
    """Return one frame as a recording of one sweep.

    Args:
        number: of the frame, such as ``000123``.
        classes: class by KITTI's name; other objects keep theirs.

    Raises:
        RecordingError: a file is missing or broken; the message names file and line.
    """
    part = _part(folder)
    matrices = _calibration(part / "calib" / f"{number}.txt")
    stamp_ns = (int(number) + 1) * _STEP_NS if number.isdecimal() else _STEP_NS
    to_rectified = _square(matrices["R0_rect"].reshape(3, 3)) @ _square(matrices["Tr_velo_to_cam"].reshape(3, 4))
    sweep = RecordedSweep(stamp_ns, partial(_points, part / "velodyne" / f"{number}.bin"), np.eye(4))
    images = []
    pictures = [part / _CAMERA / f"{number}{suffix}" for suffix in (".png", ".jpg")]
    picture = next((path for path in pictures if path.is_file()), None)
    if picture is not None:
        projection = matrices["P2"].reshape(3, 4)
        intrinsics = pinhole(projection[:, :3], None, f"{part / 'calib' / number}.txt: P2", RecordingError)
        pixels = read_picture(picture, RecordingError)
        fitted_intrinsics(intrinsics, None, pixels, picture, RecordingError)
        shift = np.eye(4)
        shift[:3, 3] = np.linalg.solve(intrinsics, projection[:, 3])
        size = (pixels.shape[1], pixels.shape[0])
        images.append(RecordedImage(_CAMERA, stamp_ns, picture, size, intrinsics, invert(shift @ to_rectified)))
    labels = part / "label_2" / f"{number}.txt"
    if not labels.is_file():
        return Recording(number, (sweep,), tuple(images), {})
    return Recording(number, (sweep,), tuple(images), {}, (_labels(labels, stamp_ns, to_rectified, classes),))


def _labels(path: Path, stamp_ns: int, to_rectified: Matrix, classes: Mapping[str, str]) -> Labels:
    objects, ignored = [], []
    for row, line in enumerate(path.read_text().splitlines(), 1):
        place, words = f"{path}:{row}", line.split()
        if not words:
            continue
        try:
            numbers = np.array(words[1:], np.float64)
        except ValueError:
            numbers = np.zeros(0)
        if len(words) not in (_FIELDS, _FIELDS + 1) or not np.isfinite(numbers).all() or not len(numbers):
            raise RecordingError(f"{place}: found {line[:80]!r}, needed KITTI's {_FIELDS} fields with finite numbers")
        if words[0] == _IGNORED:
            ignored.append(numbers[3:7])
            continue
        height, width, length, x, y, z, turn = numbers[7:14]
        check_size((length, width, height), f"{place} ({words[0]})", RecordingError)
        to_lidar = invert(to_rectified)
        centre = to_lidar @ (x, y - height / 2, z, 1.0)
        heading = to_lidar[:3, :3] @ (np.cos(turn), 0.0, -np.sin(turn))
        yaw = float(np.arctan2(heading[1], heading[0]))
        box = np.array([*centre[:3], length, width, height, yaw, np.nan, np.nan])
        objects.append(LabelledObject(classes.get(words[0], words[0]), box, source_class=words[0]))
    rectangles = {_CAMERA: np.array(ignored, np.float64).reshape(-1, 4)}
    return Labels(stamp_ns, tuple(objects), everywhere=False, ignored=rectangles)


def _calibration(path: Path) -> dict[str, NDArray[np.float64]]:
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error}), needed the frame's calibration") from error
    matrices = {}
    for line in lines:
        name, _, numbers = line.partition(":")
        try:
            matrices[name.strip()] = np.array(numbers.split(), np.float64)
        except ValueError as error:
            raise RecordingError(f"{path}: {name}: found {numbers[:60]!r}, needed numbers") from error
    for name, count in (("P2", 12), ("R0_rect", 9), ("Tr_velo_to_cam", 12)):
        found = matrices.get(name, np.zeros(0))
        if len(found) != count or not np.isfinite(found).all():
            raise RecordingError(f"{path}: {name}: found {len(found)} numbers, needed {count} finite ones")
    return matrices


def _square(matrix: NDArray[np.float64]) -> Matrix:
    """Return a (3, 3) or (3, 4) rigid transform as (4, 4), with an orthonormal rotation."""
    left, _, right = np.linalg.svd(matrix[:, :3])
    square = np.eye(4)
    square[:3, :3] = left @ right
    square[:3, 3:] = matrix[:, 3:] if matrix.shape[1] == 4 else 0.0
    return square


def _points(path: Path) -> NDArray[np.float32]:
    points = read_points(path, 4, RecordingError)
    whole = np.empty((len(points), 5), np.float32)
    whole[:, :3], whole[:, 3], whole[:, 4] = points[:, :3], points[:, 3] * 255.0, -1.0
    return whole


def _part(folder: Path) -> Path:
    return folder / "training" if (folder / "training").is_dir() else folder
