# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sensor failures of the robustness table.

`SCENARIOS` are those of MoME (arXiv:2503.19776) and its predecessors. `FURTHER_SCENARIOS` are failures of which most
leave every sensor plausible for itself, but at odds with the others.

A scenario returns a copy of a frame with failing sensors; it does not change its input. Its random numbers come from
`generator`, which depends only on scenario, frame and seed, so every model gets the same failures.
"""

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.random import Generator

from aqr_perception.data.corruption import camera_corruption, lidar_corruption, sensor_failures
from aqr_perception.data.corruption.sensor_failures import with_cloud, with_pictures, without_cameras
from aqr_perception.data.frames import LabelledFrames, earlier_frames
from aqr_perception.data.health import FrameWithHealth
from aqr_perception.data.sequences import HISTORY_STEP
from aqr_perception.frame import LabelledFrame

Scenario = Callable[[LabelledFrame, Generator], LabelledFrame]
HealthScenario = Callable[[LabelledFrame, Generator], FrameWithHealth]

BEAM_ELEVATIONS = (2.67, 0.0, -2.67, -5.33)
"""Elevations in degrees of the four of 32 beams that the published evaluations keep."""

FOG_EXTINCTION = 0.06
"""Extinction in 1/m of the scenario `fog`: a visibility of 50 m."""
_FOG_BACKSCATTER = 0.046 * FOG_EXTINCTION / 3
"""Backscatter in 1/(m sr) of fog, from its visibility (Hahner et al., arXiv:2108.05249)."""


@dataclasses.dataclass(frozen=True)
class FailureScenario:
    """A scenario that also tells the health of each sensor by place.

    Attributes:
        failing: (frame, generator, the drive's frame `HISTORY_STEP` earlier or None) -> failing frame with health.
        description: what fails and how.
        needs_earlier: whether it takes data of the earlier frame; without one, the frame stays as it is.
        draws: name for `generator`, which scenarios share that differ in severity alone; None for the scenario's name.
    """

    failing: Callable[[LabelledFrame, Generator, LabelledFrame | None], FrameWithHealth]
    description: str
    needs_earlier: bool = False
    draws: str | None = None

    def __call__(self, labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None = None) -> LabelledFrame:
        """Return the failing frame."""
        return self.failing(labelled, rng, earlier).labelled

    def with_health(
        self, labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None = None
    ) -> FrameWithHealth:
        """Return the failing frame with the health that the sensors have left."""
        return self.failing(labelled, rng, earlier)


def _clean(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> FrameWithHealth:
    return FrameWithHealth(labelled)


def _four_beams(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> FrameWithHealth:
    points = labelled.frame.points
    if points is None:
        return FrameWithHealth(labelled)
    return with_cloud(labelled, lidar_corruption.beams_nearest(points, BEAM_ELEVATIONS))


def _lidar_gone(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> FrameWithHealth:
    return with_cloud(labelled, lidar_corruption.gone())


def _lidar_field_of_view(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> FrameWithHealth:
    points = labelled.frame.points
    if points is None:
        return FrameWithHealth(labelled)
    heading = lidar_corruption.forward_heading(labelled.frame)
    return with_cloud(labelled, lidar_corruption.limited_field_of_view(points, heading, np.pi / 3))


def _half_the_objects(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> FrameWithHealth:
    points, boxes = labelled.frame.points, labelled.truth.boxes
    if points is None:
        return FrameWithHealth(labelled)
    count = int(len(boxes) / 2 + rng.choice([0.0, 0.5]))
    lost = rng.permutation(len(boxes))[:count]
    return with_cloud(labelled, lidar_corruption.without_objects(points, boxes[lost]))


def _cameras_gone(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> FrameWithHealth:
    return without_cameras(labelled, [view.name for view in labelled.frame.cameras])


def _one_camera_gone(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> FrameWithHealth:
    views = labelled.frame.cameras
    if not views:
        return FrameWithHealth(labelled)
    return without_cameras(labelled, [views[rng.integers(len(views))].name])


def _half_occluded(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> FrameWithHealth:
    views = labelled.frame.cameras
    return with_pictures(labelled, {view.name: camera_corruption.half_occluded(view.image, rng) for view in views})


def _turned_cameras(
    labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None, degrees: float
) -> FrameWithHealth:
    return sensor_failures.turned_cameras(labelled, degrees, rng)


def _shifted_lidar(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> FrameWithHealth:
    return sensor_failures.shifted_lidar(labelled, 2.0, rng)


def _delayed_cameras(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> FrameWithHealth:
    return sensor_failures.delayed_cameras(labelled, earlier)


def _fog(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> FrameWithHealth:
    return sensor_failures.in_fog(labelled, FOG_EXTINCTION, _FOG_BACKSCATTER, rng)


def _ghosts(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> FrameWithHealth:
    return sensor_failures.with_ghosts(labelled, max(5, len(labelled.truth) // 2), rng)


def _jittered_lidar(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> FrameWithHealth:
    return sensor_failures.jittered_lidar(labelled, 0.5 / lidar_corruption.MAX_NOISE, rng)


def _dirty_lenses(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> FrameWithHealth:
    return sensor_failures.dirty_lenses(labelled, 1.0, rng)


SCENARIOS: Mapping[str, FailureScenario] = {
    "clean": FailureScenario(_clean, "all sensors as they are"),
    "4 beams": FailureScenario(_four_beams, "the LiDAR keeps the four beams nearest to 2.67, 0, -2.67, -5.33 degrees"),
    "LiDAR gone": FailureScenario(_lidar_gone, "no LiDAR"),
    "LiDAR field of view +-60 degrees": FailureScenario(
        _lidar_field_of_view, "the LiDAR sees 60 degrees on either side of forward"
    ),
    "half the objects without points": FailureScenario(
        _half_the_objects, "half of the objects, drawn at random, return no LiDAR points"
    ),
    "all cameras gone": FailureScenario(_cameras_gone, "no cameras"),
    "one camera gone": FailureScenario(_one_camera_gone, "one camera, drawn at random for each frame, is missing"),
    "half of each image occluded": FailureScenario(_half_occluded, "mud covers the left or right half of each image"),
}
"""Scenarios by name, in the order of the table's rows; the default of ``evaluate``."""

FURTHER_SCENARIOS: Mapping[str, FailureScenario] = {
    "cameras turned by 3 degrees": FailureScenario(
        partial(_turned_cameras, degrees=3.0),
        "every camera is turned by 3 degrees about its vertical axis against its calibration, to a random side",
        draws="cameras turned",
    ),
    "cameras turned by 8 degrees": FailureScenario(
        partial(_turned_cameras, degrees=8.0),
        "every camera is turned by 8 degrees about its vertical axis against its calibration, to a random side",
        draws="cameras turned",
    ),
    "LiDAR shifted by 2 m": FailureScenario(
        _shifted_lidar, "all points are shifted by 2 m in one horizontal direction, drawn at random for each frame"
    ),
    "cameras late by 0.5 s": FailureScenario(
        _delayed_cameras, "every picture is that of 0.5 s before, with the stamp and calibration of now", True
    ),
    "fog": FailureScenario(
        _fog, "visibility of 50 m: haze by depth in the pictures; the LiDAR loses far points and sees the fog itself"
    ),
    "ghost objects": FailureScenario(
        _ghosts, "half as many ghosts as objects, at least five: copies of objects' points at free places"
    ),
    "LiDAR jitter of 0.5 m": FailureScenario(_jittered_lidar, "noise of 0.5 m on each axis of every point"),
    "dirty lenses": FailureScenario(_dirty_lenses, "mud in blotches and a blurring film on every lens"),
}
"""Further scenarios by name; `evaluate --scenarios further` and ``all``."""

ALL_SCENARIOS: Mapping[str, FailureScenario] = {**SCENARIOS, **FURTHER_SCENARIOS}

WITH_HEALTH: Mapping[str, HealthScenario] = {name: scenario.with_health for name, scenario in SCENARIOS.items()}
"""The published scenarios with the health that the sensors have left."""

GROUPS: Mapping[str, Mapping[str, FailureScenario]] = {
    "published": SCENARIOS,
    "further": FURTHER_SCENARIOS,
    "all": ALL_SCENARIOS,
}
"""Names that stand for several scenarios."""


def chosen(names: list[str] | None) -> dict[str, FailureScenario]:
    """Return scenarios by the names of scenarios and groups, in the table's order and with ``clean``; None: published.

    Raises:
        ValueError: there is no such scenario or group.
    """
    asked = names or ["published"]
    unknown = sorted(set(asked) - set(ALL_SCENARIOS) - set(GROUPS))
    if unknown:
        raise ValueError(
            f"scenarios {', '.join(map(repr, unknown))} do not exist; choose from {', '.join(ALL_SCENARIOS)}, or the "
            f"groups {', '.join(GROUPS)}"
        )
    wanted = {"clean", *(part for name in asked for part in GROUPS.get(name, (name,)))}
    return {name: scenario for name, scenario in ALL_SCENARIOS.items() if name in wanted}


def needs_earlier(scenarios: Mapping[str, Scenario]) -> bool:
    """Return whether one of the scenarios takes data of an earlier frame."""
    return any(isinstance(one, FailureScenario) and one.needs_earlier for one in scenarios.values())


def usable(scenarios: Mapping[str, Scenario], frames: LabelledFrames) -> tuple[dict[str, Scenario], dict[str, str]]:
    """Return the scenarios that frames allow, and those left out with the reason."""
    needing = [name for name, one in scenarios.items() if isinstance(one, FailureScenario) and one.needs_earlier]
    if not needing or any(earlier_frames(frames, index, 1, HISTORY_STEP) for index in range(len(frames))):
        return dict(scenarios), {}
    reason = (
        f"needs the drive's frame {HISTORY_STEP:g} s before, but the data has single frames, drives without poses or "
        "other intervals"
    )
    return {name: one for name, one in scenarios.items() if name not in needing}, dict.fromkeys(needing, reason)


def fail(
    name: str, scenario: Scenario, labelled: LabelledFrame, seed: int, earlier: LabelledFrame | None = None
) -> LabelledFrame:
    """Return a frame in a scenario, with the random numbers of `generator`.

    Args:
        earlier: the drive's frame `HISTORY_STEP` before, for scenarios that need it; None at its start.
    """
    if not isinstance(scenario, FailureScenario):
        return scenario(labelled, generator(name, labelled, seed))
    rng = generator(scenario.draws or name, labelled, seed)
    return scenario(labelled, rng, earlier if scenario.needs_earlier else None)


def generator(name: str, labelled: LabelledFrame, seed: int) -> Generator:
    """Return the random generator of a frame in a scenario; it does not depend on the model."""
    # The objects distinguish simulated scenes with equal stamps.
    scene = zlib.crc32(np.ascontiguousarray(labelled.truth.boxes).tobytes())
    # Frames before the start of a simulated scene have negative stamps, which are not valid seeds.
    stamp = labelled.frame.stamp_ns % 2**63
    return np.random.default_rng([seed, zlib.crc32(name.encode()), stamp, scene])
