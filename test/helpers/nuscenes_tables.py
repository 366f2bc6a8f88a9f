# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A synthetic nuScenes drive: tables, sweeps and images in a folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.geometry import invert, quaternion_xyzw, rigid_transform, transform_points

VERSION, SPLIT, SCENE = "v1.0-mini", "mini_val", "scene-0103"
START_US = 1_500_000_000_000_000
SAMPLE_US, SWEEP_US, SWEEPS = 500_000, 50_000, 3
"""Each of the three keyframes has three sweeps; the last is the keyframe's own."""
LIDAR_TO_EGO = rigid_transform([0.9, 0.0, 1.8], [0.0, 0.0, -0.7071, 0.7071])
CAMERA_DELAY_US = {"CAM_FRONT": -35_000, "CAM_BACK": 2_000}
CAMERA_TO_EGO = {
    "CAM_FRONT": rigid_transform([1.7, 0.0, 1.5], [-0.5, 0.5, -0.5, 0.5]),
    "CAM_BACK": rigid_transform([0.0, 0.0, 1.5], [0.5, 0.5, -0.5, -0.5]),
}
INTRINSICS = np.array([[60.0, 0, 40], [0, 60, 24], [0, 0, 1]])
LANDMARKS = np.random.default_rng(0).uniform((395, 880, 0), (440, 920, 5), (40, 3))
"""Static points in the world, in every sweep."""
ON_THE_ROOF = np.array([0.3, -0.2, -0.1])
PEDESTRIAN_VELOCITY = np.array([1.2, -0.5, 0.0])


def ego_pose(stamp_us: int) -> NDArray[np.float64]:
    """Return the pose of a vehicle that drives a curve at 8 m/s on a slope."""
    seconds = (stamp_us - START_US) / 1e6
    yaw = 0.4 + 0.2 * seconds
    turn = rigid_transform(
        [400 + 8 * seconds, 900 + seconds**2, 0.1 * seconds], [0, 0, np.sin(yaw / 2), np.cos(yaw / 2)]
    )
    return turn @ rigid_transform([0, 0, 0], [0.01, 0.02, 0, 1])


@dataclass
class Drive:
    """Writes tables record by record."""

    root: Path
    version: str = VERSION

    def __post_init__(self) -> None:
        names = "category attribute visibility instance sensor calibrated_sensor ego_pose log scene sample"
        self.tables: dict[str, list[dict[str, Any]]] = {
            name: [] for name in (*names.split(), "sample_data", "sample_annotation", "map")
        }

    def add(self, table: str, token: str, **fields: object) -> str:
        self.tables[table].append({"token": token, **fields})
        return token

    def add_pose(self, table: str, token: str, pose: NDArray[np.float64], **fields: object) -> str:
        rotation = np.roll(quaternion_xyzw(pose), 1).tolist()
        return self.add(table, token, translation=pose[:3, 3].tolist(), rotation=rotation, **fields)

    def write(self) -> None:
        (self.root / self.version).mkdir(parents=True)
        for name, records in self.tables.items():
            if name in ("sample_data", "sample_annotation"):
                link(records)
            (self.root / self.version / f"{name}.json").write_text(json.dumps(records))


def link(records: list[dict[str, Any]]) -> None:
    """Fill in prev and next of each sensor's or instance's records, which are in order of time."""
    last: dict[str, dict[str, Any]] = {}
    for record in records:
        chain = record.get("instance_token") or record["calibrated_sensor_token"]
        record["prev"], record["next"] = "", ""
        if chain in last:
            record["prev"], last[chain]["next"] = last[chain]["token"], record["token"]
        last[chain] = record


def add_sensor_data(drive: Drive, sample: str, channel: str, stamp_us: int, file: str, key: bool) -> None:
    pose = drive.add_pose("ego_pose", f"pose-{channel}-{stamp_us}", ego_pose(stamp_us), timestamp=stamp_us)
    drive.add(
        "sample_data",
        f"{channel}-{stamp_us}",
        sample_token=sample,
        ego_pose_token=pose,
        calibrated_sensor_token=f"calibrated-{channel}",
        timestamp=stamp_us,
        fileformat=file[-3:],
        is_key_frame=key,
        height=48,
        width=80,
        filename=file,
    )


def add_sweep(drive: Drive, sample: str, stamp_us: int, key: bool) -> None:
    world_to_lidar = invert(ego_pose(stamp_us) @ LIDAR_TO_EGO)
    points = np.vstack((transform_points(world_to_lidar, LANDMARKS), ON_THE_ROOF))
    intensity_ring = np.tile([120.0, 7.0], (len(points), 1))
    file = f"sweeps/{stamp_us}.bin"
    np.hstack((points, intensity_ring)).astype("<f4").tofile(drive.root / file)
    add_sensor_data(drive, sample, "LIDAR_TOP", stamp_us, file, key)


OBJECTS: dict[str, dict[str, Any]] = {
    # category, position, velocity, yaw, LiDAR and radar points, visibility token, attribute, samples with the object
    "parked": {"category": "vehicle.car", "at": [425.0, 908, 0.8], "size": [2.0, 4.5, 1.6], "samples": (0, 1, 2)},
    "walking": {
        "category": "human.pedestrian.adult",
        "at": [420.0, 912, 0.9],
        "size": [0.6, 0.7, 1.8],
        "velocity": PEDESTRIAN_VELOCITY,
        "visibility": "2",
        "samples": (0, 1, 2),
    },
    "once": {
        "category": "movable_object.trafficcone",
        "at": [412.0, 907, 0.4],
        "size": [0.4, 0.4, 0.8],
        "samples": (1,),
    },
    "by_radar": {
        "category": "vehicle.truck",
        "at": [432.0, 920, 1.5],
        "size": [2.5, 9, 3],
        "points": (0, 2),
        "samples": (0,),
    },
    "unseen": {
        "category": "vehicle.car",
        "at": [430.0, 905, 0.8],
        "size": [2, 4, 1.5],
        "points": (0, 0),
        "samples": (0,),
    },
    "dog": {"category": "animal", "at": [415.0, 905, 0.3], "size": [0.3, 0.9, 0.5], "samples": (0, 1, 2)},
}


ATTRIBUTES = (
    "vehicle.moving",
    "vehicle.stopped",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.sitting_lying_down",
    "pedestrian.standing",
    "pedestrian.moving",
)


def add_objects(
    drive: Drive, index: int, sample: str, stamp_us: int, objects: Mapping[str, dict[str, Any]] = OBJECTS
) -> None:
    for name, entry in objects.items():
        if index not in entry["samples"]:
            continue
        seconds = (stamp_us - START_US) / 1e6
        yaw = entry.get("yaw", 0.7 if name == "parked" else -2.0)
        pose = rigid_transform([0, 0, 0], [0, 0, np.sin(yaw / 2), np.cos(yaw / 2)])
        pose[:3, 3] = np.array(entry["at"]) + seconds * np.asarray(entry.get("velocity", np.zeros(3)))
        lidar, radar = entry.get("points", (5, 0))
        drive.add_pose(
            "sample_annotation",
            f"{name}-{index}",
            pose,
            sample_token=sample,
            instance_token=name,
            visibility_token=entry.get("visibility", "4"),
            attribute_tokens=[entry["attribute"]] if entry.get("attribute") else [],
            size=entry["size"],
            num_lidar_pts=lidar,
            num_radar_pts=radar,
        )


def add_sensors(drive: Drive) -> None:
    for channel, mount in {"LIDAR_TOP": LIDAR_TO_EGO, **CAMERA_TO_EGO}.items():
        camera = channel in CAMERA_TO_EGO
        drive.add("sensor", channel, channel=channel, modality="camera" if camera else "lidar")
        matrix = INTRINSICS.tolist() if camera else []
        drive.add_pose(
            "calibrated_sensor", f"calibrated-{channel}", mount, sensor_token=channel, camera_intrinsic=matrix
        )


def add_sample(drive: Drive, index: int, objects: Mapping[str, dict[str, Any]] = OBJECTS) -> None:
    sample, stamp = f"sample-{index}", START_US + index * SAMPLE_US
    following = f"sample-{index + 1}" if index < 2 else ""
    drive.add("sample", sample, scene_token="scene", timestamp=stamp, prev="", next=following)
    for sweep in reversed(range(SWEEPS)):
        add_sweep(drive, sample, stamp - sweep * SWEEP_US, key=sweep == 0)
    for channel, delay in CAMERA_DELAY_US.items():
        file = f"samples/{channel}-{index}.jpg"
        cv2.imwrite(str(drive.root / file), np.full((48, 80, 3), 60 + 40 * index, np.uint8))
        add_sensor_data(drive, sample, channel, stamp + delay, file, key=True)
    add_objects(drive, index, sample, stamp, objects)


def write_drive(
    root: Path,
    objects: Mapping[str, dict[str, Any]] = OBJECTS,
    version: str = VERSION,
    scenes: tuple[str, str] = (SCENE, "scene-0061"),
) -> None:
    """Write a version of nuScenes to an empty folder: a drive of three samples, and an empty scene.

    Args:
        objects: by instance token; see `OBJECTS`.
        scenes: names of the drive, and of the empty scene, which is of another split.
    """
    drive = Drive(root, version)
    for folder in ("samples", "sweeps", "maps"):
        (drive.root / folder).mkdir()
    (drive.root / "maps" / "map.png").touch()
    drive.add("log", "log")
    drive.add("map", "map", log_tokens=["log"], category="semantic_prior", filename="maps/map.png")
    drive.add("scene", "other", log_token="log", name=scenes[1], first_sample_token="", last_sample_token="")
    samples = {"first_sample_token": "sample-0", "last_sample_token": "sample-2"}
    drive.add("scene", "scene", log_token="log", name=scenes[0], **samples)
    for category in dict.fromkeys(entry["category"] for entry in (OBJECTS | dict(objects)).values()):
        drive.add("category", category, name=category)
    for attribute in ATTRIBUTES:
        drive.add("attribute", attribute, name=attribute)
    for name, entry in objects.items():
        drive.add("instance", name, category_token=entry["category"])
    add_sensors(drive)
    for index in range(3):
        add_sample(drive, index, objects)
    drive.write()
