# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Failures whose health is known everywhere: all scenarios, and single broken cameras."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from numpy.random import Generator

from aqr_perception.data.corruption import camera_corruption, misalignment, sensor_failures
from aqr_perception.data.corruption.camera_corruption import CorruptedPicture
from aqr_perception.data.corruption.changed_frame import with_views
from aqr_perception.data.health import FrameWithHealth, SensorHealth
from aqr_perception.data.sequences import HISTORY_STEP
from aqr_perception.evaluation.scenarios import ALL_SCENARIOS, GROUPS, FailureScenario, generator
from aqr_perception.frame import CameraView, LabelledFrame

CLEAN = "clean"
"""Name of the scenario without a failure, the reference of the others."""

DELAY = HISTORY_STEP
"""Age in seconds of the frame that scenarios get as the earlier one."""

TURN = 8.0
"""Degrees by which a misaligned camera is turned."""

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
    """Return the image of the earlier frame, or an imitation of it where there is none."""
    old = None if earlier is None else camera_corruption.frozen(view, labelled, earlier)
    return old or camera_corruption.late(view.image, 1.0, rng)


def dirty(view: CameraView, labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> CorruptedPicture:
    """Return an image through the dirtiest lens."""
    return camera_corruption.dirty(view.image, 1.0, rng)


def noisy(view: CameraView, labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None) -> CorruptedPicture:
    """Return a dark image with the strongest noise."""
    return camera_corruption.noisy(view.image, 1.0, rng)


def fail_pictures(
    fault: Fault, choose: Choice, labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None
) -> FrameWithHealth:
    """Return the frame with a fault in the images of the chosen cameras."""
    failing = choose(labelled.frame.cameras, rng)
    return sensor_failures.with_pictures(labelled, {view.name: fault(view, labelled, rng, earlier) for view in failing})


def misalign(
    degrees: float, choose: Choice, labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None
) -> FrameWithHealth:
    """Return the frame with the chosen cameras turned against their calibration, each to a random side."""
    failing = {view.name: degrees * rng.choice((-1.0, 1.0)) for view in choose(labelled.frame.cameras, rng)}
    if not failing:
        return FrameWithHealth(labelled)
    views = [
        misalignment.turned(view, failing[view.name]) if view.name in failing else view
        for view in labelled.frame.cameras
    ]
    health = dict.fromkeys(failing, misalignment.turned_health(degrees))
    return FrameWithHealth(with_views(labelled, views), SensorHealth(cameras=health))


def _shift_lidar(
    metres: float, choose: Choice, labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None
) -> FrameWithHealth:
    return sensor_failures.shifted_lidar(labelled, metres, rng)


FAILURES: Mapping[str, FailureScenario] = {
    **ALL_SCENARIOS,
    "one camera black": FailureScenario(partial(fail_pictures, black, one_camera), "one camera is black"),
    "all cameras black": FailureScenario(partial(fail_pictures, black, all_cameras), "all cameras are black"),
    "all cameras noisy": FailureScenario(partial(fail_pictures, noisy, all_cameras), "dark pictures, strongest noise"),
    "one camera frozen": FailureScenario(
        partial(fail_pictures, frozen, one_camera), "one camera repeats its picture of 0.5 s before"
    ),
    "one dirty lens": FailureScenario(partial(fail_pictures, dirty, one_camera), "mud on one lens"),
    "one camera turned by 8 degrees": FailureScenario(
        partial(misalign, TURN, one_camera), "one camera is turned by 8 degrees against its calibration"
    ),
}
"""Failures by name, `CLEAN` first, in the order of the tables' rows: all scenarios, then single and black cameras."""

BROKEN_SENSORS: Mapping[str, Callable[[Choice, LabelledFrame, Generator, LabelledFrame | None], FrameWithHealth]] = {
    "black camera": partial(fail_pictures, black),
    "frozen camera": partial(fail_pictures, frozen),
    "dirty camera": partial(fail_pictures, dirty),
    "misaligned camera": partial(misalign, TURN),
    "shifted LiDAR": partial(_shift_lidar, 2.0),
}
"""Kinds of broken sensors whose weights the robustness table shows, by name."""


def chosen_failures(names: Sequence[str] | None) -> dict[str, FailureScenario]:
    """Return failures by their names and by those of groups of scenarios, with `CLEAN`; None: all failures.

    Raises:
        ValueError: there is no such failure or group.
    """
    if names is None or "all" in names:
        return dict(FAILURES)
    unknown = [name for name in names if name not in FAILURES and name not in GROUPS]
    if unknown:
        raise ValueError(
            f"scenarios {', '.join(map(repr, unknown))} do not exist; choose from {', '.join(FAILURES)}, or the groups "
            f"{', '.join(GROUPS)}"
        )
    wanted = {CLEAN, *(part for name in names for part in GROUPS.get(name, (name,)))}
    return {name: failure for name, failure in FAILURES.items() if name in wanted}


def failing_frame(
    name: str, failure: FailureScenario, labelled: LabelledFrame, seed: int, earlier: LabelledFrame | None
) -> FrameWithHealth:
    """Return a frame in a failure, with the same random numbers as in the robustness table.

    Args:
        earlier: the drive's frame `DELAY` seconds before; None at its start.
    """
    return failure.with_health(labelled, generator(failure.draws or name, labelled, seed), earlier)


def break_sensor(
    kind: str, labelled: LabelledFrame, index: int, seed: int, earlier: LabelledFrame | None
) -> FrameWithHealth:
    """Return a frame with one of the `BROKEN_SENSORS`; the frame itself where it lacks the sensor.

    Args:
        index: determines the camera, in turn.
        seed: random seed of the failure.
        earlier: see `failing_frame`.
    """

    def one(views: Sequence[CameraView], _: Generator) -> Sequence[CameraView]:
        return [views[index % len(views)]] if views else []

    return BROKEN_SENSORS[kind](one, labelled, generator(kind, labelled, seed), earlier)
