"""Files, poses and objects of each keyframe, from nuScenes' tables (arXiv:1903.11027).

nuscenes-devkit reads the tables; apart from this module, only the evaluation needs it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.sources.class_lists import class_problem
from aqr_perception.data.sources.nuscenes_splits import SplitError, scenes_of_split
from aqr_perception.frame import CLASSES, GroundTruth, WorldTruth
from aqr_perception.geometry import invert, rigid_transform

LIDAR = "LIDAR_TOP"
"""nuScenes' name of its LiDAR and of the points' frame: x right, y forward, z up."""
CHANNELS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
"""The cameras in the published models' order."""
_INSTALL = (
    "pip install cachetools matplotlib pyquaternion scikit-learn shapely tqdm && "
    "pip install --no-deps nuscenes-devkit==1.2.0"
)
_BICYCLE_RACK = "static_object.bicycle_rack"
_VISIBLE_SHARES = {"1": 0.2, "2": 0.5, "3": 0.7, "4": 0.9}
"""Middles of nuScenes' visibility bins (0-40, 40-60, 60-80, 80-100 %), over all cameras together."""
Matrix = NDArray[np.float64]


class NuScenesError(ValueError):
    """nuScenes data is missing or broken; the message names the place and the remedy."""


@dataclass(frozen=True)
class Capture:
    """One sensor's file, its time in microseconds, and the sensor's (4, 4) pose at that time."""

    path: Path
    stamp_us: int
    sensor_to_world: Matrix


@dataclass(frozen=True)
class CameraCapture:
    """A camera's name, its image, and its (3, 3) pinhole matrix in pixels."""

    name: str
    capture: Capture
    intrinsics: Matrix


@dataclass(frozen=True)
class Sample:
    """One keyframe: its sweeps (newest first), cameras and objects.

    Attributes:
        token, scene: the tables' tokens of the sample and of its scene.
        truth: annotated objects, without visibility (V is 0).
        visible_share: (N,) float32, share of each object that all cameras together see, from its visibility bin.
    """

    token: str
    scene: str
    sweeps: tuple[Capture, ...]
    cameras: tuple[CameraCapture, ...]
    truth: GroundTruth
    visible_share: NDArray[np.float32]


def read_samples(
    root: Path, version: str, split: str | Sequence[str], sweeps: int, classes: tuple[str, ...] = CLASSES
) -> tuple[list[Sample], bool]:
    """Return the keyframes of a split, scene by scene in order of time, and whether the tables have annotations.

    The tables of nuScenes' test split have none.

    Args:
        split: see `nuscenes_splits.scenes_of_split`.
        sweeps: maximum number of LiDAR sweeps per keyframe, including its own.
        classes: class names of the objects; see `class_of_category`.

    Raises:
        NuScenesError: nuscenes-devkit is missing, no category has one of the classes, or the tables or the split are
            missing or broken.
    """
    tables, scenes = _open(root, version, split)
    categories = [category["name"] for category in tables.category]
    known = {class_of_category(category, classes) for category in categories}
    problem = class_problem(classes, categories) if known == {None} else None
    if problem is not None:
        raise NuScenesError(f"{root / version}: {problem}")
    samples = []
    for scene in tables.scene:
        token = scene["first_sample_token"] if scene["name"] in scenes else ""
        while token:
            sample = tables.get("sample", token)
            samples.append(_read_sample(tables, sample, sweeps, classes))
            token = sample["next"]
    if not samples:
        raise NuScenesError(f"{root / version}: found no sample in split {split!r}, needed one; choose another split")
    return samples, bool(tables.sample_annotation)


def class_of_category(category: str, classes: tuple[str, ...]) -> str | None:
    """Return the class of a nuScenes category in a list of classes; None if the list has none for it.

    A class outside nuScenes' ten is that of the category with the same name or last part: ``police`` for
    ``vehicle.emergency.police``. All others follow the devkit: ``pedestrian`` for ``human.pedestrian.adult``.
    """
    from nuscenes.eval.detection.utils import category_to_detection_name

    for own in (category, category.rpartition(".")[2]):
        if own in classes and own not in CLASSES:
            return own
    name: str | None = category_to_detection_name(category)
    return name if name in classes else None


def camera_name(channel: str) -> str:
    """Return this package's name of a nuScenes camera: ``front_left`` for ``CAM_FRONT_LEFT``."""
    return channel.removeprefix("CAM_").lower()


def _open(root: Path, version: str, split: str | Sequence[str]) -> tuple[Any, frozenset[str]]:
    """Return the devkit's tables and the names of the split's scenes."""
    try:
        from nuscenes.nuscenes import NuScenes
    except ImportError as error:
        raise NuScenesError(f"nuScenes tables need nuscenes-devkit, found: {error}; run: {_INSTALL}") from error
    if not (root / version).is_dir():
        found = ", ".join(sorted(path.name for path in root.glob("v*"))) or "none"
        raise NuScenesError(f"{root / version}: no such folder; give one of the versions in {root}: {found}")
    try:
        tables = NuScenes(version, str(root), verbose=False)
    except (AssertionError, OSError, KeyError, ValueError) as error:
        raise NuScenesError(
            f"{root / version}: nuscenes-devkit cannot read the tables ({type(error).__name__}: {error}); "
            "needed the metadata and the maps folder of that version, unpacked"
        ) from error
    try:
        return tables, scenes_of_split(split, root / version, {scene["name"] for scene in tables.scene})
    except SplitError as error:
        raise NuScenesError(str(error)) from error


def _read_sample(tables: Any, sample: dict[str, Any], sweeps: int, classes: tuple[str, ...]) -> Sample:
    try:
        return _sample(tables, sample, sweeps, classes)
    except KeyError as error:
        raise NuScenesError(
            f"{tables.table_root}: sample {sample.get('token', '?')}: found no {error}, needed the entries and the "
            f"{LIDAR} of nuScenes' tables; add it"
        ) from error


def _sample(tables: Any, sample: dict[str, Any], sweeps: int, classes: tuple[str, ...]) -> Sample:
    captures: list[Capture] = []
    token = sample["data"][LIDAR]
    while token and len(captures) < sweeps:
        captures.append(_capture(tables, token))
        token = tables.get("sample_data", token)["prev"]
    cameras = tuple(_camera(tables, sample["data"][channel]) for channel in CHANNELS if channel in sample["data"])
    annotations = [tables.get("sample_annotation", token) for token in sample["anns"]]
    names = [class_of_category(annotation["category_name"], classes) for annotation in annotations]
    kept = [
        (annotation, classes.index(name))
        for annotation, name in zip(annotations, names, strict=True)
        if name is not None and annotation["num_lidar_pts"] + annotation.get("num_radar_pts", 0) > 0
    ]
    entries = [entry for entry, _ in kept]
    for entry in entries:
        _check_box(entry)
    velocities = [tables.box_velocity(entry["token"])[:2] for entry in entries]
    racks = [entry for entry in annotations if entry["category_name"] == _BICYCLE_RACK]
    world = WorldTruth(
        token=sample["token"],
        model_to_world=captures[0].sensor_to_world,
        ego_position=_ego_position(tables, sample["data"][LIDAR]),
        boxes=np.array(
            [[*_placement(entry), *velocity] for entry, velocity in zip(entries, velocities, strict=True)], np.float64
        ).reshape(-1, 12),
        attributes=tuple(_attribute(tables, entry) for entry in entries),
        bicycle_racks=np.array([_placement(entry) for entry in racks], np.float64).reshape(-1, 10),
    )
    world_to_lidar = invert(captures[0].sensor_to_world)
    truth = GroundTruth(
        boxes=np.array(
            [_box(*box, world_to_lidar) for box in zip(entries, velocities, strict=True)], np.float32
        ).reshape(-1, 9),
        labels=np.array([label for _, label in kept], np.int64),
        tracks=np.array([tables.getind("instance", entry["instance_token"]) for entry in entries], np.int64),
        lidar_points=np.array([entry["num_lidar_pts"] for entry in entries], np.int64),
        visibility=np.zeros((len(kept), 0), np.float32),
        classes=classes,
        radar_points=np.array([entry.get("num_radar_pts", 0) for entry in entries], np.int64),
        world=world,
    )
    shares = np.array([_VISIBLE_SHARES.get(entry.get("visibility_token", ""), 1.0) for entry in entries], np.float32)
    return Sample(sample["token"], sample["scene_token"], tuple(captures), cameras, truth, shares)


def _ego_position(tables: Any, lidar_token: str) -> Matrix:
    pose = tables.get("ego_pose", tables.get("sample_data", lidar_token)["ego_pose_token"])
    return np.array(pose["translation"], np.float64)


def _check_box(annotation: dict[str, Any]) -> None:
    numbers = np.array(_placement(annotation), np.float64)
    if not np.isfinite(numbers).all() or not (numbers[3:6] > 0).all():
        raise NuScenesError(
            f"sample_annotation {annotation['token']} (sample {annotation['sample_token']}): found size "
            f"{annotation['size']}, translation {annotation['translation']} and rotation {annotation['rotation']}, "
            "needed finite numbers and sizes above 0 m; correct or remove it"
        )


def _placement(annotation: dict[str, Any]) -> list[float]:
    """Return centre, size and rotation (10,) as in `WorldTruth.boxes`."""
    return [*annotation["translation"], *annotation["size"], *annotation["rotation"]]


def _attribute(tables: Any, annotation: dict[str, Any]) -> str:
    """Return the name of an annotation's attribute; empty without one."""
    tokens = annotation.get("attribute_tokens", [])
    if len(tokens) > 1:
        raise NuScenesError(
            f"sample_annotation {annotation['token']}: found {len(tokens)} attributes, needed at most one, as in "
            "nuScenes; correct attribute_tokens"
        )
    return str(tables.get("attribute", tokens[0])["name"]) if tokens else ""


def _capture(tables: Any, token: str) -> Capture:
    record = tables.get("sample_data", token)
    sensor_to_ego = _pose(tables.get("calibrated_sensor", record["calibrated_sensor_token"]))
    ego_to_world = _pose(tables.get("ego_pose", record["ego_pose_token"]))
    return Capture(Path(tables.get_sample_data_path(token)), record["timestamp"], ego_to_world @ sensor_to_ego)


def _camera(tables: Any, token: str) -> CameraCapture:
    record = tables.get("sample_data", token)
    intrinsics = tables.get("calibrated_sensor", record["calibrated_sensor_token"])["camera_intrinsic"]
    return CameraCapture(camera_name(record["channel"]), _capture(tables, token), np.array(intrinsics, np.float64))


def _pose(record: dict[str, Any]) -> Matrix:
    return rigid_transform(record["translation"], np.roll(record["rotation"], -1))  # the tables' order is w, x, y, z


def _box(annotation: dict[str, Any], velocity: Matrix, world_to_lidar: Matrix) -> Matrix:
    """Return an annotation's box (9,) in the LiDAR frame."""
    pose = world_to_lidar @ _pose(annotation)
    width, length, height = annotation["size"]
    yaw = np.arctan2(pose[1, 0], pose[0, 0])
    # The vertical velocity is ignored, as in the published models' training.
    return np.array([*pose[:3, 3], length, width, height, yaw, *world_to_lidar[:2, :2] @ velocity])
