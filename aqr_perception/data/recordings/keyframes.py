# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Keyframe folders: one sweep with its images, calibration and labels, described by a ``keyframe.json``.

keyframe.json holds `stamp`, `ego_to_global` (at the sweep's stamp), `lidar` (file, stamp, lidar_to_ego, possibly
time_file), `cameras` (by name: file, width, height, stamp, intrinsics, camera_to_ego, lidar_to_camera, possibly
distortion and ignored_regions) and possibly `objects` (class, box, velocity, lidar_points, ...). `lidar_to_camera`
includes the vehicle's motion between sweep and image, so the vehicle's pose at the image's stamp follows from it.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

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
from aqr_perception.data.sources.nuscenes_tables import camera_name
from aqr_perception.geometry import invert

DESCRIPTION = "keyframe.json"
_SAME_POSE = 1e-3
"""Metres by which two poses of one stamp may differ without a note."""
_LONGEST_GAP = 10.0
"""Seconds between two frames of one drive."""


def keyframe_folders(folder: Path) -> list[Path]:
    """Return the keyframes' folders: the folder itself, or its folders with a keyframe.json, sorted by name."""
    if (folder / DESCRIPTION).is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{DESCRIPTION}"))


def read_keyframes(folder: Path) -> Recording:
    """Return the recording of a keyframe's folder, or of a folder of keyframes.

    Raises:
        RecordingError: the folder has no keyframe, a description is broken, or two keyframes have the same stamp.
    """
    folders = keyframe_folders(folder)
    if not folders:
        raise RecordingError(f"{folder}: found no {DESCRIPTION}, needed one in the folder or in its folders")
    sweeps: list[RecordedSweep] = []
    images: list[RecordedImage] = []
    labels: list[Labels] = []
    poses: dict[int, Matrix] = {}
    notes: dict[str, None] = {}
    for keyframe in folders:
        with _NamedErrors(keyframe / DESCRIPTION):
            description = json.loads((keyframe / DESCRIPTION).read_text())
            sweep = _sweep(keyframe, description)
            sweeps.append(sweep)
            images += _images(keyframe, description)
            labels += _labels(description, sweep.stamp_ns)
            if description.get("ego_motion") == "unknown":
                notes["the vehicle's motion is unknown: there is no /tf of it, and fixed_frame is empty"] = None
            else:
                notes |= dict.fromkeys(_add_poses(poses, description))
            if description.get("stamp_nominal") or any(
                camera.get("stamp_nominal") for camera in description["cameras"].values()
            ):
                notes["stamps are nominal, not measured"] = None
    sweeps.sort(key=lambda sweep: sweep.stamp_ns)
    for first, second in itertools.pairwise(sweeps):
        if first.stamp_ns == second.stamp_ns:
            raise RecordingError(f"{folder}: found two keyframes with stamp {first.stamp_ns} ns, needed one for each")
    gap = max((second.stamp_ns - first.stamp_ns for first, second in itertools.pairwise(sweeps)), default=0) / 1e9
    if gap > _LONGEST_GAP:
        notes[f"frames lie up to {gap:.0f} s apart, and a player waits as long: convert each frame's folder alone"] = (
            None
        )
    if poses and not all(sweep.stamp_ns in poses for sweep in sweeps):
        raise RecordingError(f"{folder}: found keyframes with and without the vehicle's motion, needed one kind")
    images.sort(key=lambda image: image.stamp_ns)
    return Recording(
        folder.name, tuple(sweeps), tuple(images), dict(sorted(poses.items())), tuple(labels), tuple(notes)
    )


class _NamedErrors:
    """Context that turns the errors of a description into a `RecordingError` with its path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RecordingError) or not isinstance(error, (KeyError, TypeError, ValueError, OSError)):
            return
        reason = f"no entry {error}" if isinstance(error, KeyError) else str(error)
        raise RecordingError(f"{self._path}: found {reason}, needed a whole keyframe; write the file again") from error


def _sweep(folder: Path, description: dict[str, Any]) -> RecordedSweep:
    lidar = description["lidar"]
    path, times = folder / lidar["file"], lidar.get("time_file")
    return RecordedSweep(
        _ns(lidar["stamp"]),
        partial(_floats, path, 5),
        _pose(lidar["lidar_to_ego"], "lidar_to_ego"),
        None if times is None else partial(_times, folder / times, path),
    )


def _floats(path: Path, columns: int) -> NDArray[np.float32]:
    try:
        values = np.fromfile(path, "<f4")
        return values.reshape(-1, columns) if columns > 1 else values
    except (OSError, ValueError) as error:
        needed = f"little-endian float32 with {columns} numbers for each point"
        raise RecordingError(f"{path}: found no readable file ({error}), needed {needed}; copy it again") from error


def _times(path: Path, points: Path) -> NDArray[np.float32]:
    times, count = _floats(path, 1), points.stat().st_size // 20
    if len(times) != count:
        raise RecordingError(f"{path}: found {len(times)} times, needed {count}, one for each point of {points.name}")
    return times


def _images(folder: Path, description: dict[str, Any]) -> Iterator[RecordedImage]:
    for channel, camera in description["cameras"].items():
        lens = camera.get("distortion", {"model": "plumb_bob", "coefficients": []})
        if lens["model"] != "plumb_bob":
            raise ValueError(f"distortion {lens['model']!r} of {channel}, needed plumb_bob")
        yield RecordedImage(
            camera=camera_name(channel),
            stamp_ns=_ns(camera["stamp"]),
            path=folder / camera["file"],
            size=(int(camera["width"]), int(camera["height"])),
            intrinsics=np.array(camera["intrinsics"], np.float64).reshape(3, 3),
            camera_to_vehicle=_pose(camera["camera_to_ego"], f"camera_to_ego of {channel}"),
            distortion=tuple(float(value) for value in lens["coefficients"]),
        )


def _labels(description: dict[str, Any], stamp_ns: int) -> list[Labels]:
    if "objects" not in description:
        return []
    objects = tuple(
        LabelledObject(
            entry["class"],
            np.array([*entry["box"], *(np.nan if v is None else v for v in entry["velocity"])], np.float64),
            int(entry.get("track", -1)),
            int(entry["lidar_points"]),
            None if "orientation_xyzw" not in entry else _four(entry["orientation_xyzw"]),
            str(entry.get("class_original", "")),
        )
        for entry in description["objects"]
    )
    ignored = {
        camera_name(channel): np.array(camera["ignored_regions"], np.float64).reshape(-1, 4)
        for channel, camera in description["cameras"].items()
        if "ignored_regions" in camera
    }
    everywhere = description.get("labels_cover", "all directions") == "all directions"
    return [Labels(stamp_ns, objects, everywhere, ignored)]


def _four(values: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, z, w = (float(value) for value in values)
    return x, y, z, w


def _add_poses(poses: dict[int, Matrix], description: dict[str, Any]) -> list[str]:
    """Add the vehicle's poses at the stamps of the sweep and of the images; return what is odd about them."""
    lidar = description["lidar"]
    ego_to_global = _pose(description["ego_to_global"], "ego_to_global")
    lidar_to_ego = _pose(lidar["lidar_to_ego"], "lidar_to_ego")
    poses[_ns(lidar["stamp"])] = ego_to_global
    found: dict[int, list[Matrix]] = {}
    for camera in description["cameras"].values():
        motion = _pose(camera["camera_to_ego"], "camera_to_ego") @ _pose(camera["lidar_to_camera"], "lidar_to_camera")
        pose = ego_to_global @ invert(motion @ invert(lidar_to_ego))
        found.setdefault(_ns(camera["stamp"]), []).append(pose)
    notes = []
    for stamp, several in found.items():
        poses.setdefault(stamp, several[0])
        furthest = max(float(np.linalg.norm(pose[:3, 3] - poses[stamp][:3, 3])) for pose in several)
        if furthest > _SAME_POSE:
            notes.append("images of one stamp have different poses of the vehicle: /tf has the first camera's")
    return notes


def _pose(rows: Any, name: str) -> Matrix:
    matrix = np.array(rows, np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError(f"{name} {matrix.tolist()}, needed a finite 4 x 4 matrix")
    return matrix


def _ns(seconds: float) -> int:
    return round(float(seconds) * 1e6) * 1000  # stamps are whole microseconds, which a float just holds
