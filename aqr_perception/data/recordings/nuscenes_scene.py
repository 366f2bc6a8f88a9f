# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A scene of nuScenes tables as a recording: all sweeps and images, the ego poses, and the keyframes' objects."""

from collections.abc import Iterator
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
from aqr_perception.data.sources.nuscenes_tables import LIDAR, NuScenesError, camera_name, class_of_category
from aqr_perception.frame import CLASSES
from aqr_perception.geometry import invert, quaternion_xyzw, rigid_transform

_TABLES = "scene.json"
_INSTALL = "pip install --no-deps nuscenes-devkit==1.2.0; the training guide names the rest"


def nuscenes_versions(root: Path) -> list[str]:
    """Return the names of the folders with nuScenes tables in a folder."""
    return sorted(path.parent.name for path in root.glob(f"*/{_TABLES}"))


def read_nuscenes_scene(root: Path, scene: str | None = None, version: str | None = None) -> Recording:
    """Return a scene as a recording.

    Objects of categories without a detection class keep the category as their name.

    Args:
        scene: name such as ``scene-0103``; None if the tables hold only one.
        version: folder of the tables; None if there is only one.

    Raises:
        RecordingError: the scene or the version must be named or does not exist, or a sensor has no data.
        NuScenesError: nuscenes-devkit is missing, or it cannot read the tables.
    """
    tables = _open(root, _only(version, nuscenes_versions(root), root, "version", "--data-version"))
    names = [entry["name"] for entry in tables.scene]
    name = _only(scene, names, root, "scene", "--scene")
    (entry,) = (entry for entry in tables.scene if entry["name"] == name)
    samples = list(_chain(tables, "sample", entry["first_sample_token"]))
    poses: dict[int, Matrix] = {}
    sweeps: list[RecordedSweep] = []
    images: list[RecordedImage] = []
    for channel in sorted({channel for sample in samples for channel in sample["data"]}):
        first = next(sample["data"][channel] for sample in samples if channel in sample["data"])
        for record in _whole_chain(tables, first):
            stamp_ns = int(record["timestamp"]) * 1000
            sensor = tables.get("calibrated_sensor", record["calibrated_sensor_token"])
            path = Path(tables.get_sample_data_path(record["token"]))
            if channel == LIDAR:
                sweeps.append(RecordedSweep(stamp_ns, partial(_points, path), _pose(sensor)))
            elif channel.startswith("CAM"):
                size = int(record["width"]), int(record["height"])
                intrinsics = np.array(sensor["camera_intrinsic"], np.float64)
                images.append(RecordedImage(camera_name(channel), stamp_ns, path, size, intrinsics, _pose(sensor)))
            else:
                continue
            poses[stamp_ns] = _pose(tables.get("ego_pose", record["ego_pose_token"]))
    if not sweeps:
        raise RecordingError(f"{root}: found no {LIDAR} in scene {name}, needed sweeps; give another scene")
    sweeps.sort(key=lambda sweep: sweep.stamp_ns)
    images.sort(key=lambda image: image.stamp_ns)
    labels = tuple(_labels(tables, sample) for sample in samples if LIDAR in sample["data"])
    return Recording(name, tuple(sweeps), tuple(images), dict(sorted(poses.items())), labels)


def _only(given: str | None, found: list[str], root: Path, what: str, option: str) -> str:
    if given is None and len(found) == 1:
        return found[0]
    if given is None or given not in found:
        said = f"{what} {given!r}" if given is not None else f"{len(found)} {what}s and no choice"
        raise RecordingError(f"{root}: found {said}, needed one of {', '.join(found) or 'none'}; give it as {option}")
    return given


def _open(root: Path, version: str) -> Any:
    try:
        from nuscenes.nuscenes import NuScenes
    except ImportError as error:
        raise NuScenesError(f"nuScenes tables need nuscenes-devkit, found: {error}; run: {_INSTALL}") from error
    try:
        return NuScenes(version, str(root), verbose=False)
    except (AssertionError, OSError, KeyError, ValueError) as error:
        raise NuScenesError(
            f"{root / version}: nuscenes-devkit cannot read the tables ({type(error).__name__}: {error}); "
            "needed the metadata and the maps folder of that version, unpacked"
        ) from error


def _chain(tables: Any, table: str, token: str) -> Iterator[dict[str, Any]]:
    while token:
        record = tables.get(table, token)
        yield record
        token = record["next"]


def _whole_chain(tables: Any, token: str) -> Iterator[dict[str, Any]]:
    """Yield all records of a sensor, including those before the first keyframe's."""
    record = tables.get("sample_data", token)
    while record["prev"]:
        record = tables.get("sample_data", record["prev"])
    yield from _chain(tables, "sample_data", record["token"])


def _points(path: Path) -> NDArray[np.float32]:
    try:
        return np.fromfile(path, "<f4").reshape(-1, 5)
    except (OSError, ValueError) as error:
        needed = "float32 (N, 5); unpack the archive again"
        raise RecordingError(f"{path}: found no readable sweep ({error}), needed {needed}") from error


def _labels(tables: Any, sample: dict[str, Any]) -> Labels:
    record = tables.get("sample_data", sample["data"][LIDAR])
    sensor = _pose(tables.get("calibrated_sensor", record["calibrated_sensor_token"]))
    world_to_lidar = invert(_pose(tables.get("ego_pose", record["ego_pose_token"])) @ sensor)
    objects = []
    for token in sample["anns"]:
        annotation = tables.get("sample_annotation", token)
        pose = world_to_lidar @ _pose(annotation)
        width, length, height = annotation["size"]
        velocity = (world_to_lidar[:3, :3] @ tables.box_velocity(token))[:2]
        yaw = np.arctan2(pose[1, 0], pose[0, 0])
        x, y, z, w = quaternion_xyzw(pose).tolist()
        category = annotation["category_name"]
        objects.append(
            LabelledObject(
                class_of_category(category, CLASSES) or category,
                np.array([*pose[:3, 3], length, width, height, yaw, *velocity]),
                tables.getind("instance", annotation["instance_token"]),
                int(annotation["num_lidar_pts"]),
                (x, y, z, w),
                category,
            )
        )
    return Labels(int(record["timestamp"]) * 1000, tuple(objects))


def _pose(record: dict[str, Any]) -> Matrix:
    return rigid_transform(record["translation"], np.roll(record["rotation"], -1))  # the tables' order is w, x, y, z
