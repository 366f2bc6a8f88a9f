"""The sensor failures of the robustness table, as MoME (arXiv:2503.19776) and its predecessors define them.

Every scenario takes a frame and gives the same frame with failing sensors; the input is left alone. What is random in
it comes from `generator`, which depends on scenario, frame and seed alone, so that every model sees the same failures.
"""

import dataclasses
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from numpy.random import Generator

from aqr_perception.data.corruption import camera_corruption, lidar_corruption
from aqr_perception.data.corruption.random_corruption import with_points, with_views
from aqr_perception.frame import LabelledFrame

Scenario = Callable[[LabelledFrame, Generator], LabelledFrame]

BEAM_ELEVATIONS = (2.67, 0.0, -2.67, -5.33)
"""Degrees of the four beams of 32 that the published figures keep."""


def clean(labelled: LabelledFrame, rng: Generator) -> LabelledFrame:
    """Nothing fails."""
    return labelled


def four_beams(labelled: LabelledFrame, rng: Generator) -> LabelledFrame:
    """The LiDAR has four beams, about the horizon."""
    points = labelled.frame.points
    if points is None:
        return labelled
    return with_points(labelled, lidar_corruption.beams_nearest(points, BEAM_ELEVATIONS).points)


def lidar_gone(labelled: LabelledFrame, rng: Generator) -> LabelledFrame:
    """No cloud arrives."""
    return with_points(labelled, None)


def lidar_field_of_view(labelled: LabelledFrame, rng: Generator) -> LabelledFrame:
    """The LiDAR sees 60 degrees to either side of the vehicle's front."""
    points = labelled.frame.points
    if points is None:
        return labelled
    heading = lidar_corruption.forward_heading(labelled.frame)
    return with_points(labelled, lidar_corruption.limited_field_of_view(points, heading, np.pi / 3).points)


def half_the_objects(labelled: LabelledFrame, rng: Generator) -> LabelledFrame:
    """Half of the objects, rounded at random, return no points."""
    points, boxes = labelled.frame.points, labelled.truth.boxes
    if points is None:
        return labelled
    count = int(len(boxes) / 2 + rng.choice([0.0, 0.5]))
    lost = rng.permutation(len(boxes))[:count]
    return with_points(labelled, lidar_corruption.without_objects(points, boxes[lost]).points)


def cameras_gone(labelled: LabelledFrame, rng: Generator) -> LabelledFrame:
    """No picture arrives."""
    return with_views(labelled, ())


def one_camera_gone(labelled: LabelledFrame, rng: Generator) -> LabelledFrame:
    """One camera, another one from frame to frame, sends nothing."""
    views = labelled.frame.cameras
    if not views:
        return labelled
    lost = rng.integers(len(views))
    return with_views(labelled, [view for index, view in enumerate(views) if index != lost])


def half_occluded(labelled: LabelledFrame, rng: Generator) -> LabelledFrame:
    """The left or the right half of each picture is covered."""
    views = (
        dataclasses.replace(view, image=camera_corruption.half_occluded(view.image, rng).image)
        for view in labelled.frame.cameras
    )
    return with_views(labelled, tuple(views))


SCENARIOS: Mapping[str, Scenario] = {
    "clean": clean,
    "4 beams": four_beams,
    "LiDAR gone": lidar_gone,
    "LiDAR field of view +-60 degrees": lidar_field_of_view,
    "half the objects without points": half_the_objects,
    "all cameras gone": cameras_gone,
    "one camera gone": one_camera_gone,
    "half of each image occluded": half_occluded,
}
"""The robustness table's rows, in its order."""


def generator(name: str, labelled: LabelledFrame, seed: int = 0) -> Generator:
    """Return the generator for a frame in a scenario: the same for the same frame, whichever model looks at it."""
    # Simulated scenes may share their stamps; their objects differ.
    scene = zlib.crc32(np.ascontiguousarray(labelled.truth.boxes).tobytes())
    # What was seen before a simulated scene's start has a negative stamp, which is no seed.
    stamp = labelled.frame.stamp_ns % 2**63
    return np.random.default_rng([seed, zlib.crc32(name.encode()), stamp, scene])


def apply(name: str, labelled: LabelledFrame, seed: int = 0) -> LabelledFrame:
    """Return a frame as one of the `SCENARIOS` leaves it.

    Raises:
        ValueError: there is no such scenario.
    """
    if name not in SCENARIOS:
        raise ValueError(f"scenario {name!r} does not exist; choose one of {', '.join(SCENARIOS)}")
    return SCENARIOS[name](labelled, generator(name, labelled, seed))
