# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Failures of a frame's cameras or LiDAR as a whole, with the health of every sensor."""

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from aqr_perception.data.corruption import camera_corruption, ghost_objects, lidar_corruption, misalignment
from aqr_perception.data.corruption.camera_corruption import CorruptedPicture
from aqr_perception.data.corruption.changed_frame import with_moved_points, with_points, with_views
from aqr_perception.data.corruption.lidar_corruption import CorruptedCloud
from aqr_perception.data.corruption.lidar_weather import foggy
from aqr_perception.data.corruption.picture_depth import picture_depth
from aqr_perception.data.corruption.picture_weather import hazy
from aqr_perception.data.health import BROKEN, HEALTH_GRID, FrameWithHealth, SensorHealth
from aqr_perception.frame import LabelledFrame


def with_cloud(labelled: LabelledFrame, cloud: CorruptedCloud, *, moved: bool = False) -> FrameWithHealth:
    """Return a frame with a failing LiDAR.

    Args:
        moved: whether the LiDAR still sees its objects, at other places, so that their point counts stay.
    """
    if moved and cloud.points is not None:
        failing = with_moved_points(labelled, cloud.points)
    else:
        failing = with_points(labelled, cloud.points)
    return FrameWithHealth(failing, SensorHealth(cloud.health, lidar_corruption.REACH))


def with_pictures(labelled: LabelledFrame, pictures: Mapping[str, CorruptedPicture]) -> FrameWithHealth:
    """Return a frame with the images of some failing cameras, by name; the frame itself without any."""
    if not pictures:
        return FrameWithHealth(labelled)
    views = [
        dataclasses.replace(view, image=pictures[view.name].image) if view.name in pictures else view
        for view in labelled.frame.cameras
    ]
    health = {name: picture.health for name, picture in pictures.items()}
    return FrameWithHealth(with_views(labelled, views), SensorHealth(cameras=health))


def without_cameras(labelled: LabelledFrame, names: Collection[str]) -> FrameWithHealth:
    """Return a frame without some cameras."""
    left = [view for view in labelled.frame.cameras if view.name not in names]
    nothing = np.zeros(HEALTH_GRID, np.float32)
    return FrameWithHealth(with_views(labelled, left), SensorHealth(cameras=dict.fromkeys(names, nothing)))


def with_cameras_missing(frame: FrameWithHealth, names: Collection[str]) -> FrameWithHealth:
    """Return a failing frame without some cameras, too."""
    left = without_cameras(frame.labelled, names)
    cameras = {**frame.health.cameras, **left.health.cameras}
    return FrameWithHealth(left.labelled, dataclasses.replace(frame.health, cameras=cameras))


def without_broken_sensors(frame: FrameWithHealth) -> FrameWithHealth:
    """Return a frame without the sensors that are broken everywhere: what a gate leaves that trusts none of them.

    A frame without any other sensor stays as it is.
    """
    labelled, health = frame.labelled, frame.health
    broken = [view.name for view in labelled.frame.cameras if _is_broken(health.cameras.get(view.name))]
    blind = labelled.frame.points is None or _is_broken(health.lidar)
    if blind and len(broken) == len(labelled.frame.cameras):
        return frame
    if blind:
        frame = joined(frame, with_cloud(labelled, lidar_corruption.gone()))
    return with_cameras_missing(frame, broken) if broken else frame


def turned_cameras(labelled: LabelledFrame, degrees: float, rng: Generator) -> FrameWithHealth:
    """Turn every camera about its own vertical axis by an angle, each to its left or right at random."""
    views = labelled.frame.cameras
    if not views:
        return FrameWithHealth(labelled)
    sides = rng.choice((-1.0, 1.0), len(views))
    changed = [misalignment.turned(view, side * degrees) for view, side in zip(views, sides, strict=True)]
    health = dict.fromkeys((view.name for view in views), misalignment.turned_health(degrees))
    return FrameWithHealth(with_views(labelled, changed), SensorHealth(cameras=health))


def shifted_lidar(labelled: LabelledFrame, metres: float, rng: Generator) -> FrameWithHealth:
    """Shift the LiDAR's points horizontally in a random direction."""
    angle = rng.uniform(-np.pi, np.pi)
    offset = np.eye(4)
    offset[:2, 3] = metres * np.cos(angle), metres * np.sin(angle)
    points = labelled.frame.points
    if points is None:
        return FrameWithHealth(labelled)
    return with_cloud(labelled, misalignment.moved_lidar(points, offset), moved=True)


def delayed_cameras(labelled: LabelledFrame, earlier: LabelledFrame | None) -> FrameWithHealth:
    """Give every camera its picture of an earlier frame with the present calibration and stamp; none without one."""
    if earlier is None:
        return FrameWithHealth(labelled)
    old = {view.name: camera_corruption.frozen(view, labelled, earlier) for view in labelled.frame.cameras}
    return with_pictures(labelled, {name: picture for name, picture in old.items() if picture is not None})


def delayed_lidar(labelled: LabelledFrame, earlier: LabelledFrame | None) -> FrameWithHealth:
    """Give the LiDAR its points of an earlier frame, as if they were new."""
    if earlier is None or labelled.frame.points is None:
        return FrameWithHealth(labelled)
    cloud = misalignment.delayed_lidar(labelled, earlier)
    return FrameWithHealth(labelled) if cloud is None else with_cloud(labelled, cloud, moved=True)


def in_fog(
    labelled: LabelledFrame, extinction: float, backscatter: float, rng: Generator, *, loses: bool = True
) -> FrameWithHealth:
    """Put a frame in fog: haze by depth in the pictures, weaker and false echoes in the LiDAR; see `foggy`, `hazy`."""
    points = labelled.frame.points
    views = labelled.frame.cameras
    hazed = {view.name: hazy(view.image, picture_depth(view, points), extinction, rng) for view in views}
    pictures = with_pictures(labelled, hazed)
    if points is None:
        return pictures
    return joined(
        pictures,
        with_cloud(pictures.labelled, foggy(points, extinction, backscatter, rng, loses=loses)),
    )


def with_ghosts(labelled: LabelledFrame, count: int, rng: Generator) -> FrameWithHealth:
    """Add ghost objects to the LiDAR's points; see `ghost_objects.with_ghosts`."""
    points = labelled.frame.points
    if points is None:
        return FrameWithHealth(labelled)
    cloud = ghost_objects.with_ghosts(points, labelled.truth.boxes, count, rng)
    return with_cloud(labelled, cloud, moved=True)


def jittered_lidar(labelled: LabelledFrame, severity: float, rng: Generator) -> FrameWithHealth:
    """Add noise to the LiDAR's points; see `lidar_corruption.noisy`."""
    points = labelled.frame.points
    if points is None:
        return FrameWithHealth(labelled)
    return with_cloud(labelled, lidar_corruption.noisy(points, severity, rng), moved=True)


def dirty_lenses(labelled: LabelledFrame, severity: float, rng: Generator) -> FrameWithHealth:
    """Put dirt on every camera's lens; see `camera_corruption.dirty`."""
    views = labelled.frame.cameras
    return with_pictures(labelled, {view.name: camera_corruption.dirty(view.image, severity, rng) for view in views})


def joined(first: FrameWithHealth, second: FrameWithHealth) -> FrameWithHealth:
    """Return the second frame, made from the first, with the health of both: cameras of both, the second's LiDAR."""
    health = SensorHealth(second.health.lidar, second.health.reach, {**first.health.cameras, **second.health.cameras})
    return FrameWithHealth(second.labelled, health)


def _is_broken(health: NDArray[np.float32] | None) -> bool:
    return health is not None and bool((health <= BROKEN).all())
