# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Scenes in the layout of DGP (TRI-ML/dgp), as DDAD has them, as recordings.

A scene's folder has scene_*.json (samples, and data with sensor, time, file and the sensor's pose in the world),
calibration/KEY.json (each sensor's pose on the vehicle, and intrinsics), ontology/KEY.json (names of the classes),
point_cloud/*/*.npz, rgb/*/* and bounding_box_3d/*/*.json.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.corruption.lidar_corruption import points_in_box
from aqr_perception.data.recordings.recorded_data import (
    LabelledObject,
    Labels,
    Matrix,
    RecordedImage,
    RecordedSweep,
    Recording,
    RecordingError,
)
from aqr_perception.geometry import invert, rigid_transform

_BOXES_3D = "1"
"""Key of 3D boxes in a scene's annotations and ontologies."""
_INTENSITY_SCALE = 255.0
_FURTHEST_YEAR = 2200
"""Years after it are those of DDAD's first releases, whose times are ten times too large."""
_CLASSES: Mapping[str, str] = {
    "Car": "car",
    "Truck": "truck",
    "Bus/RV/Caravan": "bus",
    "Trailer": "trailer",
    "Motorcycle": "motorcycle",
    "Bicycle": "bicycle",
    "Person": "pedestrian",
    "Pedestrian": "pedestrian",
}
"""DDAD's classes with a counterpart among nuScenes'; others keep their name."""
_TENFOLD = "stamps are the source's divided by ten, because they lie in the far future"


def scene_files(folder: Path) -> list[Path]:
    """Return the descriptions of the scenes in a folder, or in its folders."""
    return sorted(folder.glob("scene_*.json")) or sorted(folder.glob("*/scene_*.json"))


def read_dgp_scene(folder: Path, scene: str | None = None) -> Recording:
    """Return a scene as a recording.

    Args:
        folder: folder of a scene, a folder of such folders, or a scene_*.json.
        scene: name of the scene's folder; None if there is only one.

    Raises:
        RecordingError: the scene must be named or does not exist, or a file is missing or broken.
    """
    files = [folder] if folder.is_file() else scene_files(folder)
    names = [path.parent.name for path in files]
    if scene is not None:
        files = [path for path in files if path.parent.name == scene]
    if len(files) != 1:
        said = f"scene {scene!r}" if scene is not None else f"{len(files)} scenes and no choice"
        needed = f"one of {', '.join(names) or 'none'}; give it as --scene"
        raise RecordingError(f"{folder}: found {said}, needed {needed}")
    (path,) = files
    try:
        return _Scene(path).recording()
    except (KeyError, TypeError, ValueError, OSError) as error:
        if isinstance(error, RecordingError):
            raise
        reason = f"no entry {error}" if isinstance(error, KeyError) else str(error)
        raise RecordingError(f"{path}: found {reason}, needed a whole DGP scene; unpack it again") from error


class _Scene:
    """The files of one scene."""

    def __init__(self, path: Path) -> None:
        self._root = path.parent
        self._scene = json.loads(path.read_text())
        self._data = {entry["key"]: entry for entry in self._scene["data"]}
        self._calibrations: dict[str, dict[str, tuple[Matrix, Matrix]]] = {}
        self._tenfold = False

    def recording(self) -> Recording:
        sweeps: list[RecordedSweep] = []
        images: list[RecordedImage] = []
        labels: list[Labels] = []
        poses: dict[int, Matrix] = {}
        differ = False
        for sample in self._scene["samples"]:
            sensors = self._calibration(sample["calibration_key"])
            for key in sample["datum_keys"]:
                entry = self._data[key]
                name, stamp = entry["id"]["name"], self._ns(entry["id"]["timestamp"])
                to_vehicle, intrinsics = sensors[name]
                if "point_cloud" in entry["datum"]:
                    datum = entry["datum"]["point_cloud"]
                    read = partial(_points, self._root / datum["filename"], tuple(datum["point_format"]))
                    sweeps.append(RecordedSweep(stamp, read, to_vehicle))
                    if _BOXES_3D in datum["annotations"]:
                        labels.append(Labels(stamp, self._objects(datum["annotations"][_BOXES_3D], read())))
                elif "image" in entry["datum"]:
                    datum = entry["datum"]["image"]
                    size = int(datum["width"]), int(datum["height"])
                    path = self._root / datum["filename"]
                    images.append(RecordedImage(name.lower(), stamp, path, size, intrinsics, to_vehicle))
                else:
                    continue
                pose = _pose(datum["pose"]) @ invert(to_vehicle)
                differ |= bool(np.linalg.norm(poses.setdefault(stamp, pose)[:3, 3] - pose[:3, 3]) > 1e-3)
        if not sweeps:
            raise RecordingError(f"{self._root}: found no point cloud in the scene, needed sweeps")
        sweeps.sort(key=lambda sweep: sweep.stamp_ns)
        images.sort(key=lambda image: image.stamp_ns)
        notes = [_TENFOLD] if self._tenfold else []
        if differ:
            notes.append("images of one stamp have different poses of the vehicle: /tf has the first camera's")
        return Recording(
            self._root.name, tuple(sweeps), tuple(images), dict(sorted(poses.items())), tuple(labels), tuple(notes)
        )

    def _calibration(self, key: str) -> dict[str, tuple[Matrix, Matrix]]:
        """Return each sensor's (4, 4) pose on the vehicle and (3, 3) intrinsics."""
        if key not in self._calibrations:
            content = json.loads((self._root / "calibration" / f"{key}.json").read_text())
            self._calibrations[key] = {
                name: (_pose(place), _intrinsics(lens))
                for name, place, lens in zip(
                    content["names"], content["extrinsics"], content["intrinsics"], strict=True
                )
            }
        return self._calibrations[key]

    def _objects(self, file: str, points: NDArray[np.float32]) -> tuple[LabelledObject, ...]:
        ontology = json.loads((self._root / "ontology" / f"{self._scene['ontologies'][_BOXES_3D]}.json").read_text())
        names = {item["id"]: item["name"] for item in ontology["items"]}
        objects = []
        for entry in json.loads((self._root / file).read_text())["annotations"]:
            box, turn = entry["box"], entry["box"]["pose"]["rotation"]
            pose = _pose(box["pose"])
            yaw = float(np.arctan2(pose[1, 0], pose[0, 0]))
            values = np.array([*pose[:3, 3], box["length"], box["width"], box["height"], yaw, np.nan, np.nan])
            name = names[entry["class_id"]]
            orientation = (float(turn["qx"]), float(turn["qy"]), float(turn["qz"]), float(turn["qw"]))
            hits = len(points_in_box(points, values))
            track = int(entry["instance_id"])
            objects.append(LabelledObject(_CLASSES.get(name, name), values, track, hits, orientation, name))
        return tuple(objects)

    def _ns(self, text: str) -> int:
        match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z?", text)
        if match is None:
            raise ValueError(f"the time {text!r}, needed one such as 2019-05-03T21:39:53.820375Z")
        whole = datetime.strptime(match[1], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
        stamp = int(whole.timestamp()) * 1_000_000_000 + int((match[2] or "0").ljust(9, "0"))
        if whole.year > _FURTHEST_YEAR:
            self._tenfold = True
            return round(stamp / 10_000) * 1000
        return stamp


def _pose(entry: dict[str, Any]) -> Matrix:
    place, turn = entry["translation"], entry["rotation"]
    return rigid_transform([place[axis] for axis in "xyz"], [turn[f"q{axis}"] for axis in "xyzw"])


def _intrinsics(lens: dict[str, Any]) -> Matrix:
    skew = float(lens.get("skew", 0.0))
    return np.array([[lens["fx"], skew, lens["cx"]], [0.0, lens["fy"], lens["cy"]], [0.0, 0.0, 1.0]], np.float64)


def _points(path: Path, layout: tuple[str, ...]) -> NDArray[np.float32]:
    """Return (N, 5): x, y, z, intensity 0..255, ring -1; DDAD stores intensities 0..1 and no ring."""
    try:
        with np.load(path) as archive:
            values = archive["data"]
            columns = [layout.index(name) for name in ("X", "Y", "Z", "INTENSITY")]
            points = np.full((len(values), 5), -1.0, np.float32)
            points[:, :4] = values[:, columns]
    except (OSError, KeyError, ValueError, IndexError) as error:
        needed = f"an npz with 'data' in columns X, Y, Z, INTENSITY (layout: {', '.join(layout)})"
        raise RecordingError(f"{path}: found no readable cloud ({error}), needed {needed}") from error
    points[:, 3] *= _INTENSITY_SCALE
    return points
