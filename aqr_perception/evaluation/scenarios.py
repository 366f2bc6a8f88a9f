"""Sensor failures of the robustness table, as defined by MoME (arXiv:2503.19776) and its predecessors.

A scenario returns a copy of a frame with failing sensors; it does not change its input. Its random numbers come from
`generator`, which depends only on scenario, frame and seed, so every model gets the same failures.
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
"""Elevations in degrees of the four of 32 beams that the published evaluations keep."""


def clean(labelled: LabelledFrame, rng: Generator) -> LabelledFrame:
    """Return the frame itself."""
    return labelled


def four_beams(labelled: LabelledFrame, rng: Generator) -> LabelledFrame:
    """Reduce the LiDAR to four beams near the horizon."""
    points = labelled.frame.points
    if points is None:
        return labelled
    return with_points(labelled, lidar_corruption.beams_nearest(points, BEAM_ELEVATIONS).points)


def lidar_gone(labelled: LabelledFrame, rng: Generator) -> LabelledFrame:
    """Remove the sweep."""
    return with_points(labelled, None)


def lidar_field_of_view(labelled: LabelledFrame, rng: Generator) -> LabelledFrame:
    """Limit the LiDAR to 60 degrees on either side of the vehicle's forward direction."""
    points = labelled.frame.points
    if points is None:
        return labelled
    heading = lidar_corruption.forward_heading(labelled.frame)
    return with_points(labelled, lidar_corruption.limited_field_of_view(points, heading, np.pi / 3).points)


def half_the_objects(labelled: LabelledFrame, rng: Generator) -> LabelledFrame:
    """Remove the points on half of the objects; an odd number is rounded up or down at random."""
    points, boxes = labelled.frame.points, labelled.truth.boxes
    if points is None:
        return labelled
    count = int(len(boxes) / 2 + rng.choice([0.0, 0.5]))
    lost = rng.permutation(len(boxes))[:count]
    return with_points(labelled, lidar_corruption.without_objects(points, boxes[lost]).points)


def cameras_gone(labelled: LabelledFrame, rng: Generator) -> LabelledFrame:
    """Remove all images."""
    return with_views(labelled, ())


def one_camera_gone(labelled: LabelledFrame, rng: Generator) -> LabelledFrame:
    """Remove one camera, chosen at random for each frame."""
    views = labelled.frame.cameras
    if not views:
        return labelled
    lost = rng.integers(len(views))
    return with_views(labelled, [view for index, view in enumerate(views) if index != lost])


def half_occluded(labelled: LabelledFrame, rng: Generator) -> LabelledFrame:
    """Cover the left or the right half of each image."""
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
"""Scenarios by name, in the order of the table's rows."""


def generator(name: str, labelled: LabelledFrame, seed: int) -> Generator:
    """Return the random generator of a frame in a scenario; it does not depend on the model."""
    # The objects distinguish simulated scenes with equal stamps.
    scene = zlib.crc32(np.ascontiguousarray(labelled.truth.boxes).tobytes())
    # Frames before the start of a simulated scene have negative stamps, which are not valid seeds.
    stamp = labelled.frame.stamp_ns % 2**63
    return np.random.default_rng([seed, zlib.crc32(name.encode()), stamp, scene])
