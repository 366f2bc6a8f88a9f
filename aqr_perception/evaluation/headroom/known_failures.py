"""Sensor failures whose health is known everywhere: those of the robustness table and further ones.

A failure returns a copy of a frame with the health that each sensor has left. Like those of `scenarios`, its random
numbers depend only on its name, the frame and a seed.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from aqr_perception.data.corruption import camera_corruption, false_points, lidar_corruption
from aqr_perception.data.corruption.camera_corruption import CorruptedPicture
from aqr_perception.data.corruption.lidar_corruption import CorruptedCloud
from aqr_perception.data.corruption.random_corruption import misplaced
from aqr_perception.data.health import HEALTH_GRID, FrameWithHealth, SensorHealth
from aqr_perception.data.sequences import HISTORY_STEP
from aqr_perception.evaluation import scenarios
from aqr_perception.evaluation.scenarios import HealthScenario, with_cloud, with_pictures
from aqr_perception.frame import CameraView, LabelledFrame

Failure = Callable[[LabelledFrame, Generator, LabelledFrame | None], FrameWithHealth]
"""A frame, random numbers, and the drive's frame `DELAY` seconds before (None at its start) -> the failing frame."""

DELAY = HISTORY_STEP
"""Age in seconds of frozen and delayed pictures."""

GHOSTS = 12
"""Ghost objects in a frame."""

_HARMFUL_TURN = 6.0
"""Degrees of rotation with health 0; half of it leaves half the health, as in training."""

Choice = Callable[[Sequence[CameraView], Generator], Sequence[CameraView]]
Fault = Callable[[CameraView, LabelledFrame, Generator, LabelledFrame | None], CorruptedPicture]


def one_camera(views: Sequence[CameraView], rng: Generator) -> Sequence[CameraView]:
    """Return one camera, drawn at random for each frame."""
    return [views[int(rng.integers(len(views)))]] if views else []


def all_cameras(views: Sequence[CameraView], rng: Generator) -> Sequence[CameraView]:
    """Return all cameras."""
    return views


def black(view: CameraView, labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> CorruptedPicture:
    """Return a black image."""
    return camera_corruption.black(view.image)


def frozen(
    view: CameraView, labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None
) -> CorruptedPicture:
    """Return the image of the earlier frame, or an imitation of it."""
    old = None if earlier is None else camera_corruption.frozen(view, labelled, earlier)
    return old or camera_corruption.late(view.image, 1.0, rng)


def dirty(view: CameraView, labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> CorruptedPicture:
    """Return an image with dirt over two thirds."""
    return camera_corruption.occluded(view.image, 1.0, rng)


def noisy(view: CameraView, labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> CorruptedPicture:
    """Return a dark image with the strongest noise."""
    return camera_corruption.noisy(view.image, 1.0, rng)


def fail_pictures(
    fault: Fault, choose: Choice, labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None
) -> FrameWithHealth:
    """Return the frame with a fault in the images of the chosen cameras."""
    failing = choose(labelled.frame.cameras, rng)
    return with_pictures(labelled, {view.name: fault(view, labelled, rng, earlier) for view in failing})


def misalign(
    degrees: float, choose: Choice, labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None
) -> FrameWithHealth:
    """Return the frame with the chosen cameras turned about one random axis, as after a bump of their mount.

    The calibration is wrong, the images are intact. Health falls linearly to 0 at 6 degrees.
    """
    failing = {view.name for view in choose(labelled.frame.cameras, rng)}
    axis = rng.standard_normal(3)
    offset = np.eye(4)
    offset[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    views = tuple(misplaced(view, offset) if view.name in failing else view for view in labelled.frame.cameras)
    health = np.full(HEALTH_GRID, max(0.0, 1.0 - degrees / _HARMFUL_TURN), np.float32)
    frame = dataclasses.replace(labelled.frame, cameras=views)
    sensors = SensorHealth(cameras=dict.fromkeys(failing, health))
    return FrameWithHealth(dataclasses.replace(labelled, frame=frame), sensors)


def shift_lidar(
    distance: float, labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None
) -> FrameWithHealth:
    """Return the frame with its points moved in a random horizontal direction."""
    heading = rng.uniform(-np.pi, np.pi)
    return _fail_points(labelled, lambda points: false_points.shifted(points, distance, heading))


def jitter_lidar(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> FrameWithHealth:
    """Return the frame with the strongest noise on its points: a deviation of 0.5 m on each axis."""
    return _fail_points(labelled, lambda points: lidar_corruption.noisy(points, 1.0, rng))


def ghost_objects(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> FrameWithHealth:
    """Return the frame with the points of `GHOSTS` objects that do not exist."""
    return _fail_points(labelled, lambda points: false_points.ghosts(points, labelled.truth.boxes, GHOSTS, rng))


def _fail_points(labelled: LabelledFrame, fault: Callable[[NDArray[np.float32]], CorruptedCloud]) -> FrameWithHealth:
    points = labelled.frame.points
    return FrameWithHealth(labelled) if points is None else with_cloud(labelled, fault(points))


def _shift_only_lidar(
    distance: float, choose: Choice, labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None
) -> FrameWithHealth:
    return shift_lidar(distance, labelled, rng, earlier)


def _without_earlier(
    scenario: HealthScenario, labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None
) -> FrameWithHealth:
    return scenario(labelled, rng)


CLEAN = "clean"
"""Name of the case without a failure, the reference of the others."""

FAILURES: Mapping[str, Failure] = {
    **{name: partial(_without_earlier, scenario) for name, scenario in scenarios.WITH_HEALTH.items()},
    "one camera black": partial(fail_pictures, black, one_camera),
    "all cameras black": partial(fail_pictures, black, all_cameras),
    "one camera frozen": partial(fail_pictures, frozen, one_camera),
    "all cameras delayed by 0.5 s": partial(fail_pictures, frozen, all_cameras),
    "dirt on one lens": partial(fail_pictures, dirty, one_camera),
    "dirt on all lenses": partial(fail_pictures, dirty, all_cameras),
    "all cameras noisy": partial(fail_pictures, noisy, all_cameras),
    "one camera turned by 3 degrees": partial(misalign, 3.0, one_camera),
    "one camera turned by 8 degrees": partial(misalign, 8.0, one_camera),
    "all cameras turned by 3 degrees": partial(misalign, 3.0, all_cameras),
    "all cameras turned by 8 degrees": partial(misalign, 8.0, all_cameras),
    "LiDAR shifted by 2 m": partial(shift_lidar, 2.0),
    "LiDAR with 0.5 m of jitter": jitter_lidar,
    "ghost objects in the LiDAR": ghost_objects,
}
"""Failures by name, `CLEAN` first, in the order of the tables' rows."""

BROKEN_SENSORS: Mapping[str, Callable[[Choice, LabelledFrame, Generator, LabelledFrame | None], FrameWithHealth]] = {
    "black camera": partial(fail_pictures, black),
    "frozen camera": partial(fail_pictures, frozen),
    "dirty camera": partial(fail_pictures, dirty),
    "misaligned camera": partial(misalign, 8.0),
    "shifted LiDAR": partial(_shift_only_lidar, 2.0),
}
"""Kinds of broken sensors whose weights the robustness table shows, by name."""


def break_sensor(
    kind: str, labelled: LabelledFrame, index: int, rng: Generator, earlier: LabelledFrame | None
) -> FrameWithHealth:
    """Return a frame with one of the `BROKEN_SENSORS`; the frame itself where it lacks the sensor.

    Args:
        index: determines the camera, in turn.
    """

    def one(views: Sequence[CameraView], _: Generator) -> Sequence[CameraView]:
        return [views[index % len(views)]] if views else []

    return BROKEN_SENSORS[kind](one, labelled, rng, earlier)
