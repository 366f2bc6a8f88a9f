# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Channels and categories of nuScenes-like tables: which sensors and classes a rig file, or their names, choose."""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aqr_perception.data.rig_file import Rig
from aqr_perception.frame import CLASSES

LIDAR = "LIDAR_TOP"
"""nuScenes' name of its LiDAR and of the points' frame: x right, y forward, z up."""
CHANNELS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
"""The cameras in the published models' order."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Channels:
    """The channels of the sensors.

    Attributes:
        lidar: the LiDAR's channel.
        cameras: the cameras' names by channel, in the order of `Frame.cameras`.
    """

    lidar: str
    cameras: Mapping[str, str]


def choose_channels(sensors: Iterable[Mapping[str, Any]], rig: Rig | None, error: type[ValueError]) -> Channels:
    """Return the channels of the table ``sensor`` that a rig file names, or all of them without one.

    Nuscenes' own cameras come first, in the published models' order, and others by name.

    Raises:
        error: a channel of the rig file is not in the table, or the table has no LiDAR or several to choose from.
    """
    found: dict[str, list[str]] = {"lidar": [], "camera": []}
    for sensor in sensors:
        found.setdefault(str(sensor.get("modality")), []).append(str(sensor.get("channel")))
    if rig is None or not rig.cameras:
        known = [channel for channel in CHANNELS if channel in found["camera"]]
        others = sorted(set(found["camera"]) - set(CHANNELS))
        cameras = {channel: camera_name(channel) for channel in (*known, *others)}
        if others:
            _log.info("cameras of the tables: %s; a rig file (--rig) gives them names and an order", ", ".join(cameras))
    else:
        cameras = {channel: camera.name for channel, camera in rig.by_channel().items()}
        missing = sorted(set(cameras) - set(found["camera"]))
        without = [camera.name for camera in rig.cameras if not camera.channel]
        if missing or without:
            asked = f"channels {', '.join(missing)}" if missing else f"no camera_channels for {', '.join(without)}"
            has = ", ".join(sorted(found["camera"])) or "none"
            raise error(f"{rig.source}: data: camera_channels: found {asked}, needed channels of the tables: {has}")
    return Channels(_lidar(found["lidar"], rig, error), cameras)


def _lidar(found: list[str], rig: Rig | None, error: type[ValueError]) -> str:
    wanted = "" if rig is None else rig.lidar_channel
    if wanted:
        if wanted in found:
            return wanted
        has = ", ".join(sorted(found)) or "none"
        raise error(f"{rig and rig.source}: data: lidar_channel is {wanted!r}, but the tables have {has}")
    if LIDAR in found:
        return LIDAR
    if len(found) == 1:
        return found[0]
    has = ", ".join(sorted(found)) or "no sensor of modality lidar"
    raise error(f"table sensor: found {has}, needed {LIDAR} or one LiDAR; choose one with lidar_channel in a rig file")


def camera_name(channel: str) -> str:
    """Return this package's name of a nuScenes camera: ``front_left`` for ``CAM_FRONT_LEFT``."""
    return channel.removeprefix("CAM_").lower()


def class_of_category(category: str, classes: tuple[str, ...], rig: Rig | None = None) -> str | None:
    """Return the class of a nuScenes category in a list of classes; None if the list has none for it.

    A rig file's entry comes first; then a class of the same name. A class outside nuScenes' ten is that of the category
    with the same last part, too: ``police`` for ``vehicle.emergency.police``. All others follow the devkit:
    ``pedestrian`` for ``human.pedestrian.adult``.
    """
    from nuscenes.eval.detection.utils import category_to_detection_name

    if rig is not None and category in rig.classes:
        return rig.class_of(category, classes)
    last = category.rpartition(".")[2]
    if category in classes:
        return category
    if last in classes and last not in CLASSES:
        return last
    name: str | None = category_to_detection_name(category)
    return name if name in classes else None


def foreign_categories(categories: Collection[str], classes: tuple[str, ...], rig: Rig | None) -> list[str]:
    """Return the categories that are neither nuScenes' nor in the rig file and have no class."""
    listed = set() if rig is None else set(rig.classes)
    return sorted(
        name
        for name in set(categories)
        if name not in listed and class_of_category(name, classes, rig) is None and name.split(".")[0] not in _NUSCENES
    )


_NUSCENES = ("animal", "human", "movable_object", "static_object", "vehicle", "flat", "static", "noise")
"""First parts of nuScenes' categories; those without a class are left out there, too."""
