# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Files, poses and objects of each keyframe, from nuScenes' tables (arXiv:1903.11027).

nuscenes-devkit reads the tables; apart from this module, only the evaluation needs it.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.rig_file import Rig
from aqr_perception.data.sources.class_lists import class_problem
from aqr_perception.data.sources.nuscenes_channels import (
    CHANNELS,
    LIDAR,
    Channels,
    camera_name,
    choose_channels,
    class_of_category,
    foreign_categories,
)
from aqr_perception.data.sources.nuscenes_splits import SplitError, scenes_of_split
from aqr_perception.data.sources.record_checks import check_pose, check_size, check_steps, pinhole
from aqr_perception.frame import CLASSES, GroundTruth, WorldTruth
from aqr_perception.geometry import invert, rigid_transform
from aqr_perception.sweep_choice import spaced_sweeps

__all__ = [
    "CHANNELS", "LIDAR", "CameraCapture", "Capture", "NuScenesError", "Sample", "camera_name", "class_of_category",
    "read_samples",
]  # fmt: skip
_INSTALL = (
    "pip install cachetools matplotlib pyquaternion scikit-learn shapely tqdm && "
    "pip install --no-deps nuscenes-devkit==1.2.0"
)
_BICYCLE_RACK = "static_object.bicycle_rack"
_VISIBLE_SHARES = {"1": 0.2, "2": 0.5, "3": 0.7, "4": 0.9}
"""Middles of nuScenes' visibility bins (0-40, 40-60, 60-80, 80-100 %), over all cameras together."""
Matrix = NDArray[np.float64]

_log = logging.getLogger(__name__)


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
    """A camera's name, its image, and its (3, 3) pinhole matrix in pixels of the size in the tables; None: unknown."""

    name: str
    capture: Capture
    intrinsics: Matrix
    size: tuple[int, int] | None = None


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
    root: Path,
    version: str,
    split: str | Sequence[str],
    sweeps: int,
    classes: tuple[str, ...] = CLASSES,
    rig: Rig | None = None,
    problem: Callable[[NuScenesError], None] | None = None,
    sweep_interval: float = 0.0,
) -> tuple[list[Sample], bool]:
    """Return the keyframes of a split, scene by scene in order of time, and whether the tables have annotations.

    The tables of nuScenes' test split have none.

    Args:
        split: see `nuscenes_splits.scenes_of_split`.
        sweeps: maximum number of LiDAR sweeps per keyframe, including its own.
        classes: class names of the objects; see `class_of_category`.
        rig: channels and classes of one's own tables; None: see `choose_channels`.
        problem: receives records that are left out; None raises them.
        sweep_interval: see `sweep_choice.spaced_sweeps`.

    Raises:
        NuScenesError: nuscenes-devkit is missing, no category has one of the classes, the tables or the split are
            missing or broken, or a record is.
    """
    tables, scenes = _open(root, version, split)
    folder = root / version
    _check_categories(folder, [category["name"] for category in tables.category], classes, rig)
    channels = choose_channels(tables.sensor, rig, NuScenesError)
    reading = _Reading(tables, folder, sweeps, sweep_interval, classes, channels, rig, problem or _raise)
    samples = [sample for scene in tables.scene if scene["name"] in scenes for sample in _read_scene(reading, scene)]
    if not samples:
        raise NuScenesError(f"{root / version}: found no sample in split {split!r}, needed one; choose another split")
    return samples, bool(tables.sample_annotation)


@dataclass(frozen=True)
class _Reading:
    """What every record of the tables is read with."""

    tables: Any
    folder: Path
    sweeps: int
    sweep_interval: float
    classes: tuple[str, ...]
    channels: Channels
    rig: Rig | None
    problem: Callable[[NuScenesError], None]


def _raise(error: NuScenesError) -> None:
    raise error


def _check_categories(folder: Path, categories: Sequence[str], classes: tuple[str, ...], rig: Rig | None) -> None:
    own = ", or map categories to classes with 'classes' in a rig file (--rig)"
    if categories and {class_of_category(category, classes, rig) for category in categories} == {None}:
        listed = f"found the categories {', '.join(sorted(categories))}, needed one of {', '.join(classes)}"
        raise NuScenesError(f"{folder}: {class_problem(classes, categories) or listed}{own}")
    foreign = ", ".join(foreign_categories(categories, classes, rig))
    if foreign:
        _log.warning(
            "%s: objects of the categories %s are left out: change 'classes' in the preset%s", folder, foreign, own
        )


def _read_scene(reading: _Reading, scene: dict[str, Any]) -> Iterator[Sample]:
    """Yield the samples of a scene, in order; broken ones are problems."""
    samples = []
    token = scene["first_sample_token"]
    while token:
        try:
            samples.append(reading.tables.get("sample", token))
        except KeyError as error:
            needed = f"it, as scene {scene['name']} names it"
            raise NuScenesError(f"{reading.folder}: sample {token}: found no such sample, needed {needed}") from error
        token = samples[-1].get("next", "")
    stamps = [sample["timestamp"] for sample in samples]
    check_steps(stamps, 1e6, f"{reading.folder}: sample.json: scene {scene['name']}", NuScenesError)
    for sample in samples:
        place = f"{reading.folder}: sample {sample['token']}"
        try:
            yield _read_sample(reading, sample, place)
        except NuScenesError as error:
            reading.problem(error)
        except KeyError as error:
            reading.problem(NuScenesError(f"{place}: found no {error}, needed the entries of nuScenes' tables; add it"))
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            reading.problem(NuScenesError(f"{place}: found a wrong entry ({error}), needed nuScenes' schema"))


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


def _read_sample(reading: _Reading, sample: dict[str, Any], place: str) -> Sample:
    tables, classes, lidar = reading.tables, reading.classes, reading.channels.lidar
    if lidar not in sample["data"]:
        found = ", ".join(sample["data"]) or "no sensor"
        raise NuScenesError(f"{place}: found data of {found}, needed {lidar}")
    tokens = []

    def stamps_ns() -> Iterator[int]:
        token = sample["data"][lidar]
        while token:
            tokens.append(token)
            record = tables.get("sample_data", token)
            yield 1000 * record["timestamp"]
            token = record["prev"]

    chosen = spaced_sweeps(stamps_ns(), reading.sweeps, reading.sweep_interval)
    captures = [_capture(tables, tokens[index]) for index in chosen]
    cameras = tuple(
        _camera(tables, sample["data"][channel], name)
        for channel, name in reading.channels.cameras.items()
        if channel in sample["data"]
    )
    annotations = [
        entry for token in sample["anns"] if (entry := _annotation(reading, token, sample["token"])) is not None
    ]
    names = [class_of_category(annotation["category_name"], classes, reading.rig) for annotation in annotations]
    kept = [
        (annotation, classes.index(name))
        for annotation, name in zip(annotations, names, strict=True)
        if name is not None and annotation["num_lidar_pts"] + annotation.get("num_radar_pts", 0) > 0
    ]
    entries = [entry for entry, _ in kept]
    velocities = [tables.box_velocity(entry["token"])[:2] for entry in entries]
    racks = [entry for entry in annotations if entry["category_name"] == _BICYCLE_RACK]
    world = WorldTruth(
        token=sample["token"],
        model_to_world=captures[0].sensor_to_world,
        ego_position=_ego_position(tables, sample["data"][lidar]),
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


def _annotation(reading: _Reading, token: str, sample: str) -> dict[str, Any] | None:
    """Return an annotation; None, with a problem, if it cannot be used."""
    place = f"{reading.folder}: sample_annotation {token} (sample {sample})"
    try:
        annotation: dict[str, Any] = reading.tables.get("sample_annotation", token)
        if "num_lidar_pts" not in annotation:
            raise NuScenesError(f"{place}: found no 'num_lidar_pts', needed the number of LiDAR points in it; add it")
        check_size(annotation["size"], place, NuScenesError)
        check_pose(annotation["translation"], annotation["rotation"], place, NuScenesError)
    except KeyError as error:
        reading.problem(NuScenesError(f"{place}: found no {error}, needed the entries of nuScenes' tables; add it"))
        return None
    except NuScenesError as error:
        reading.problem(error)
        return None
    return annotation


def _ego_position(tables: Any, lidar_token: str) -> Matrix:
    pose = tables.get("ego_pose", tables.get("sample_data", lidar_token)["ego_pose_token"])
    return np.array(pose["translation"], np.float64)


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
    sensor_to_ego = _checked_pose(tables, "calibrated_sensor", record["calibrated_sensor_token"])
    ego_to_world = _checked_pose(tables, "ego_pose", record["ego_pose_token"])
    return Capture(Path(tables.get_sample_data_path(token)), record["timestamp"], ego_to_world @ sensor_to_ego)


def _checked_pose(tables: Any, table: str, token: str) -> Matrix:
    record = tables.get(table, token)
    check_pose(record["translation"], record["rotation"], f"{table} {token}", NuScenesError)
    return _pose(record)


def _camera(tables: Any, token: str, name: str) -> CameraCapture:
    record = tables.get("sample_data", token)
    width, height = record.get("width") or 0, record.get("height") or 0
    calibration = record["calibrated_sensor_token"]
    entry = tables.get("calibrated_sensor", calibration).get("camera_intrinsic")
    intrinsics = pinhole(entry, width or None, f"calibrated_sensor {calibration}", NuScenesError)
    return CameraCapture(name, _capture(tables, token), intrinsics, (width, height) if width and height else None)


def _pose(record: dict[str, Any]) -> Matrix:
    return rigid_transform(record["translation"], np.roll(record["rotation"], -1))  # the tables' order is w, x, y, z


def _box(annotation: dict[str, Any], velocity: Matrix, world_to_lidar: Matrix) -> Matrix:
    """Return an annotation's box (9,) in the LiDAR frame."""
    pose = world_to_lidar @ _pose(annotation)
    width, length, height = annotation["size"]
    yaw = np.arctan2(pose[1, 0], pose[0, 0])
    # The vertical velocity is ignored, as in the published models' training.
    return np.array([*pose[:3, 3], length, width, height, yaw, *world_to_lidar[:2, :2] @ velocity])
