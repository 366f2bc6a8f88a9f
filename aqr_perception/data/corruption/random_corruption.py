# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Random sensor corruption with the resulting health, to train the router to recognise sensor failures.

Besides sensors that fail visibly, some do not fit the others: turned cameras, a shifted LiDAR, old data. Which of two
sensors is wrong shows in the others, and in marks such as the LiDAR's blind circle around itself; with one camera
against one LiDAR it may not show at all.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from aqr_perception.data.corruption import (
    camera_corruption,
    ghost_objects,
    lidar_corruption,
    misalignment,
    sensor_failures,
)
from aqr_perception.data.corruption.camera_corruption import CorruptedPicture
from aqr_perception.data.corruption.changed_frame import with_points as with_points
from aqr_perception.data.corruption.changed_frame import with_views as with_views
from aqr_perception.data.corruption.misalignment import misplaced as misplaced
from aqr_perception.data.corruption.misalignment import random_offset as random_offset
from aqr_perception.data.health import FrameWithHealth, SensorHealth
from aqr_perception.frame import CameraView, LabelledFrame

CLEAN_SHARE = 0.35
"""Share of the frames without any failure."""
MIN_SEVERITY = 0.2
"""Lowest severity; severities are drawn from here to 1."""

FOG_SHARE = 0.05
"""Share of the frames with fog in all sensors."""

GHOST_SHARE = 0.1
"""Share of the frames with ghosts and nothing else broken: they are a few of many places, and the rest must stay."""

LONE_SHARE = 0.1
"""Share of the frames without any camera, and share of those without points, both with nothing else broken.

As in CMT's masked-modal training (arXiv:2301.01283). Where cameras are hardly ever all missing, a decoder
leans on their presence: `aqr_tiny` once lost 4 points of NDS without cameras, and 1 with black ones.
"""

# About half of all failures show only in a comparison of the sensors, because those are the hardest to learn. Where the
# evidence is weak, a calibrated weight is close to the share of failures in training.
_CAMERA_FAULTS = {
    "black": 0.1,
    "missing": 0.1,
    "frozen": 0.16,
    "noisy": 0.06,
    "blurred": 0.06,
    "over-exposed": 0.06,
    "occluded": 0.08,
    "dirty": 0.08,
    "misplaced": 0.12,
    "turned": 0.18,
}
_LIDAR_FAULTS = {
    "gone": 0.1,
    "few beams": 0.12,
    "field of view": 0.12,
    "objects": 0.14,
    "noisy": 0.08,
    "shifted": 0.24,
    "delayed": 0.1,
    "ghosts": 0.1,
}
_GROUPS = {"one": 0.4, "several": 0.3, "all": 0.3}


def corrupt(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None = None) -> FrameWithHealth:
    """Return a frame with one or two failures, or of a share of its own: unchanged, without a modality, ghosts, fog.

    The input is not modified; the result shares its intact arrays. At least one sensor keeps some health. In the ground
    truth, only point counts and the columns of missing cameras change.

    Args:
        labelled: a frame with intact sensors.
        rng: random generator of the failures and their severity.
        earlier: an earlier frame of the same drive, for old data; without it, `late` imitates old images, and a shift
            along a random direction an old sweep.

    Raises:
        ValueError: `earlier` is not earlier.
    """
    frame = FrameWithHealth(labelled)
    kind = rng.random()
    if kind < CLEAN_SHARE:
        return frame
    if kind > 1 - FOG_SHARE:
        return _in_fog(labelled, rng)
    if kind > 1 - FOG_SHARE - GHOST_SHARE and labelled.frame.points is not None:
        return sensor_failures.with_ghosts(labelled, int(rng.integers(2, 20)), rng)
    if kind < CLEAN_SHARE + 2 * LONE_SHARE and labelled.frame.points is not None and labelled.frame.cameras:
        return _lone_lidar(labelled) if kind < CLEAN_SHARE + LONE_SHARE else _lone_cameras(labelled)
    for _ in range(rng.integers(1, 3)):
        # No sensor fails twice, because a frozen image would replace a black one.
        lidar = labelled.frame.points is not None and not _lidar_failed(frame.health)
        working = [view.name for view in frame.labelled.frame.cameras if view.name not in frame.health.cameras]
        if not lidar and not working:
            break
        on_lidar = lidar and (not working or rng.random() < 0.5)
        failed = _fail_lidar(frame, rng, earlier) if on_lidar else _fail_cameras(frame, working, rng, earlier)
        # A frame without any working sensor would train the model to guess.
        frame = frame if _blind(failed) else failed
    return frame


def _lone_lidar(labelled: LabelledFrame) -> FrameWithHealth:
    return sensor_failures.without_cameras(labelled, [view.name for view in labelled.frame.cameras])


def _lone_cameras(labelled: LabelledFrame) -> FrameWithHealth:
    return sensor_failures.with_cloud(labelled, lidar_corruption.gone())


def _in_fog(labelled: LabelledFrame, rng: Generator) -> FrameWithHealth:
    """Return the frame in fog with a visibility of 30 to 200 m, which returns more or less of the LiDAR's light."""
    visibility = float(np.exp(rng.uniform(np.log(30.0), np.log(200.0))))
    backscatter = float(np.exp(rng.uniform(np.log(0.001), np.log(0.03))))
    return sensor_failures.in_fog(labelled, 3.0 / visibility, backscatter, rng)


def _fail_lidar(frame: FrameWithHealth, rng: Generator, earlier: LabelledFrame | None) -> FrameWithHealth:
    """Return the frame with its LiDAR corrupted."""
    labelled = frame.labelled
    points, truth = labelled.frame.points, labelled.truth
    assert points is not None
    kind, severity = _draw_kind(_LIDAR_FAULTS, rng), _severity(rng)
    if kind == "gone":
        cloud = lidar_corruption.gone()
    elif kind == "few beams":
        cloud = lidar_corruption.few_beams(points, rng)
    elif kind == "field of view":
        heading, half_angle = rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(30, 120))
        cloud = lidar_corruption.limited_field_of_view(points, heading, half_angle)
    elif kind == "objects":
        cloud = lidar_corruption.without_objects(points, truth.boxes[rng.random(len(truth)) < 0.5])
    elif kind == "noisy":
        cloud = lidar_corruption.noisy(points, severity, rng)
    elif kind == "ghosts":
        cloud = ghost_objects.with_ghosts(points, truth.boxes, int(rng.integers(2, 12)), rng)
    else:
        old = misalignment.delayed_lidar(labelled, earlier) if kind == "delayed" and earlier is not None else None
        cloud = old or misalignment.moved_lidar(points, _lidar_offset(severity, turns=kind == "shifted", rng=rng))
    moved = kind in ("noisy", "ghosts", "shifted", "delayed")
    failed = sensor_failures.with_cloud(labelled, cloud, moved=moved)
    return sensor_failures.joined(frame, failed)


def _lidar_offset(severity: float, turns: bool, rng: Generator) -> NDArray[np.float64]:
    """Return a (4, 4) calibration error: at severity 1, 3 m along the ground and 5 degrees about a random axis.

    Rotation and shift have shares of their own; without `turns`, there is only the shift.
    """
    offset = np.eye(4)
    angle = rng.uniform(-np.pi, np.pi)
    share = rng.uniform(0.3, 1.0) if turns else 1.0
    offset[:2, 3] = 3.0 * severity * share * np.array([np.cos(angle), np.sin(angle)])
    if turns:
        axis = rng.standard_normal(3)
        axis *= np.radians(5.0 * severity * rng.uniform()) / np.linalg.norm(axis)
        offset[:3, :3] = Rotation.from_rotvec(axis).as_matrix()
    return offset


def _fail_cameras(
    frame: FrameWithHealth, working: Sequence[str], rng: Generator, earlier: LabelledFrame | None
) -> FrameWithHealth:
    """Return the frame with one, several or all of its working cameras corrupted by the same kind of failure."""
    views = frame.labelled.frame.cameras
    failing = _draw_cameras(working, rng)
    kind = _draw_kind(_CAMERA_FAULTS, rng)
    if kind == "missing":
        return sensor_failures.with_cameras_missing(frame, failing)
    health = dict(frame.health.cameras)
    # All misplaced cameras share one offset, as after a bump.
    severity = _severity(rng)
    offset = random_offset(severity, rng)
    changed = list(views)
    for index, view in enumerate(views):
        if view.name not in failing:
            continue
        if kind == "misplaced":
            changed[index] = misplaced(view, offset)
            health[view.name] = misalignment.turned_health(3.0 * severity)
        elif kind == "turned":
            angle = 10.0 * severity * rng.choice([-1.0, 1.0])
            changed[index] = misalignment.turned(view, angle)
            health[view.name] = misalignment.turned_health(angle)
        else:
            picture = _corrupted_picture(kind, view, frame.labelled, rng, earlier)
            changed[index] = dataclasses.replace(view, image=picture.image)
            health[view.name] = picture.health
    return FrameWithHealth(with_views(frame.labelled, changed), dataclasses.replace(frame.health, cameras=health))


def _corrupted_picture(
    kind: str, view: CameraView, labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None
) -> CorruptedPicture:
    severity = _severity(rng)
    if kind == "black":
        return camera_corruption.black(view.image)
    if kind == "noisy":
        return camera_corruption.noisy(view.image, severity, rng)
    if kind == "blurred":
        return camera_corruption.blurred(view.image, severity, rng)
    if kind == "over-exposed":
        return camera_corruption.over_exposed(view.image, severity)
    if kind == "dirty":
        return camera_corruption.dirty(view.image, severity, rng)
    if kind == "occluded":
        return camera_corruption.occluded(view.image, severity, rng)
    frozen = None if earlier is None else camera_corruption.frozen(view, labelled, earlier)
    return frozen or camera_corruption.late(view.image, severity, rng)


def _draw_cameras(working: Sequence[str], rng: Generator) -> set[str]:
    """Return the names of the cameras that fail."""
    size = _draw_kind(_GROUPS, rng)
    count = len(working) if size == "all" else 1
    if size == "several" and len(working) > 2:
        count = int(rng.integers(2, len(working)))
    return {working[index] for index in rng.choice(len(working), count, replace=False)}


def _draw_kind(shares: dict[str, float], rng: Generator) -> str:
    return str(rng.choice(list(shares), p=list(shares.values())))


def _severity(rng: Generator) -> float:
    return float(rng.uniform(MIN_SEVERITY, 1.0))


def _lidar_failed(health: SensorHealth) -> bool:
    return health.lidar.size > 1  # the health of an intact LiDAR is a single cell


def _blind(frame: FrameWithHealth) -> bool:
    views, health = frame.labelled.frame.cameras, frame.health
    lidar = frame.labelled.frame.points is not None and bool(health.lidar.any())
    return not lidar and all(view.name in health.cameras and not health.cameras[view.name].any() for view in views)
