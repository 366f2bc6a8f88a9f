"""Random sensor corruption with the resulting health, to train the router to recognise sensor failures."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from aqr_perception.data.corruption import camera_corruption, lidar_corruption
from aqr_perception.data.corruption.camera_corruption import CorruptedPicture
from aqr_perception.data.health import HEALTH_GRID, FrameWithHealth, SensorHealth
from aqr_perception.frame import CameraView, LabelledFrame

CLEAN_SHARE = 0.35
"""Share of the frames without any failure."""
MIN_SEVERITY = 0.2
"""Lowest severity; severities are drawn from here to 1."""

_CAMERA_FAULTS = {
    "black": 0.2,
    "missing": 0.2,
    "frozen": 0.1,
    "noisy": 0.1,
    "blurred": 0.1,
    "over-exposed": 0.1,
    "occluded": 0.1,
    "misplaced": 0.1,
}
_LIDAR_FAULTS = {"gone": 0.3, "few beams": 0.15, "field of view": 0.2, "objects": 0.25, "noisy": 0.1}
_GROUPS = {"one": 0.4, "several": 0.3, "all": 0.3}


def corrupt(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None = None) -> FrameWithHealth:
    """Return a frame with one or two failures; in `CLEAN_SHARE` of the draws, return the frame unchanged.

    The input is not modified; the result shares its intact arrays. At least one sensor keeps some health. In the ground
    truth, only point counts and the columns of missing cameras change.

    Args:
        labelled: a frame with intact sensors.
        rng: random generator of the failures and their severity.
        earlier: an earlier frame of the same drive, for frozen images; without it, `late` imitates them.

    Raises:
        ValueError: `earlier` is not earlier.
    """
    frame = FrameWithHealth(labelled)
    if rng.random() < CLEAN_SHARE:
        return frame
    for _ in range(rng.integers(1, 3)):
        # No sensor fails twice, because a frozen image would replace a black one.
        lidar = labelled.frame.points is not None and not _lidar_failed(frame.health)
        working = [view.name for view in frame.labelled.frame.cameras if view.name not in frame.health.cameras]
        if not lidar and not working:
            break
        on_lidar = lidar and (not working or rng.random() < 0.5)
        failed = _fail_lidar(frame, rng) if on_lidar else _fail_cameras(frame, working, rng, earlier)
        # A frame without any working sensor would train the model to guess.
        frame = frame if _blind(failed) else failed
    return frame


def with_points(labelled: LabelledFrame, points: NDArray[np.float32] | None) -> LabelledFrame:
    """Return a frame with fewer LiDAR points, and with reduced point counts of the boxes."""
    truth, left = labelled.truth, np.zeros(len(labelled.truth), np.int64)
    if points is not None:
        left[:] = [len(lidar_corruption.points_in_box(points, box)) for box in truth.boxes]
    # Counts may cover only the newest sweep (nuScenes), so they must not grow.
    truth = dataclasses.replace(truth, lidar_points=np.minimum(truth.lidar_points, left))
    return dataclasses.replace(labelled, frame=dataclasses.replace(labelled.frame, points=points), truth=truth)


def with_views(labelled: LabelledFrame, views: Sequence[CameraView]) -> LabelledFrame:
    """Return a frame with some of its cameras, possibly modified, in the frame's order."""
    kept = {view.name for view in views}
    columns = [index for index, view in enumerate(labelled.frame.cameras) if view.name in kept]
    truth = dataclasses.replace(labelled.truth, visibility=labelled.truth.visibility[:, columns])
    return dataclasses.replace(labelled, frame=dataclasses.replace(labelled.frame, cameras=tuple(views)), truth=truth)


def misplaced(view: CameraView, offset: NDArray[np.float64]) -> CameraView:
    """Return a camera with a calibration error: a rigid (4, 4) transform of the model frame."""
    return dataclasses.replace(view, extrinsics=view.extrinsics @ offset)


def random_offset(severity: float, rng: Generator) -> NDArray[np.float64]:
    """Return a (4, 4) calibration error: at severity 1, 3 degrees about and 0.3 m along random axes."""
    axes = rng.standard_normal((2, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    offset = np.eye(4)
    offset[:3, :3] = Rotation.from_rotvec(np.radians(3.0 * severity) * axes[0]).as_matrix()
    offset[:3, 3] = 0.3 * severity * axes[1]
    return offset


def _fail_lidar(frame: FrameWithHealth, rng: Generator) -> FrameWithHealth:
    """Return the frame with its LiDAR corrupted."""
    points, truth = frame.labelled.frame.points, frame.labelled.truth
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
    else:
        cloud = lidar_corruption.noisy(points, severity, rng)
    labelled = frame.labelled
    if kind == "noisy":
        labelled = dataclasses.replace(labelled, frame=dataclasses.replace(labelled.frame, points=cloud.points))
    else:
        labelled = with_points(labelled, cloud.points)
    health = dataclasses.replace(frame.health, lidar=cloud.health, reach=lidar_corruption.REACH)
    return FrameWithHealth(labelled, health)


def _fail_cameras(
    frame: FrameWithHealth, working: Sequence[str], rng: Generator, earlier: LabelledFrame | None
) -> FrameWithHealth:
    """Return the frame with one, several or all of its working cameras corrupted by the same kind of failure."""
    views = frame.labelled.frame.cameras
    failing = _draw_cameras(working, rng)
    kind = _draw_kind(_CAMERA_FAULTS, rng)
    health = dict(frame.health.cameras)
    if kind == "missing":
        health |= {name: np.zeros(HEALTH_GRID, np.float32) for name in failing}
        others = [view for view in views if view.name not in failing]
        return FrameWithHealth(with_views(frame.labelled, others), dataclasses.replace(frame.health, cameras=health))
    # All misplaced cameras share one offset, as after a bump.
    severity = _severity(rng)
    offset = random_offset(severity, rng)
    changed = list(views)
    for index, view in enumerate(views):
        if view.name not in failing:
            continue
        if kind == "misplaced":
            changed[index] = misplaced(view, offset)
            health[view.name] = np.full(HEALTH_GRID, 1.0 - 0.5 * severity, np.float32)
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
