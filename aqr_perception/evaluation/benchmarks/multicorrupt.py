# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The ten corruptions of MultiCorrupt (Beemelmanns et al. 2024, arXiv:2402.11677) at three severities each.

Names, probabilities and parameters are those of the published tools (ika-rwth-aachen/MultiCorrupt, v0.0.10); the
implementation is this package's own. Below, what equals them, and what differs (-):

beamsreducing: 16, 8, 4 of 32 beams, the same ones. - Beams come from the points' elevations in place of a ring number;
    other sensors keep as many beams, evenly spread, and all of them if they have no more.
brightness: the value of HSV plus 0.5, 0.6, 0.7.
dark: range, gamma, shot and read noise.
fog: extinction and backscatter of the LiDAR's fog, the simulation of Hahner et al. - Echoes of fog stay between sensor
    and target. Pictures: haze by depth from the LiDAR's points (a uniform veil without points) with the LiDAR's
    extinction, in place of fractal clouds.
missingcamera: each camera is black with probability 0.2, 0.4, 0.6.
motionblur: pictures: kernel and directions; LiDAR: shift of each sweep and jitter of its points. - The kernel scales
    with the picture's width.
pointsreducing: 70, 80, 90 % of the points are lost. - Of all sweeps together, not of each.
snow: numbers of the pictures' flakes; snowfall, flakes and beams of the LiDAR. - Flakes scale with the picture's width.
    LiDAR: flakes are drawn for each point, not as one pattern a beam, and the noise floor comes from all points, not
    from labelled ground.
spatialmisalignment: each sweep, with probability 0.2, 0.4, 0.6, is turned by 1, 2, 3 degrees about all axes and moved
    by 2 m to the vehicle's right (x of nuScenes' LiDAR).
temporalmisalignment: LiDAR and each camera, with probability 0.2, 0.4, 0.6, have the data of the keyframe before. -
    Of 0.5 s before, and only of the same drive; at its start, the frame stays as it is.

The severities of a corruption share their random numbers: what fails at one severity fails at the next, too.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from aqr_perception.data.corruption import camera_corruption, lidar_corruption, picture_weather, sensor_failures
from aqr_perception.data.corruption.camera_corruption import CorruptedPicture
from aqr_perception.data.corruption.lidar_beams import sweep_indices
from aqr_perception.data.corruption.lidar_corruption import CorruptedCloud, uniform_health
from aqr_perception.data.corruption.lidar_weather import Snowfall, in_snow
from aqr_perception.data.corruption.misalignment import in_vehicle_axes, moved_lidar
from aqr_perception.data.corruption.sensor_failures import with_cloud, with_pictures
from aqr_perception.data.health import FrameWithHealth
from aqr_perception.evaluation.scenarios import SCENARIOS as FAILURES
from aqr_perception.evaluation.scenarios import FailureScenario
from aqr_perception.frame import CameraView, LabelledFrame

SEVERITIES = (1, 2, 3)
_SHARES = (0.2, 0.4, 0.6)
"""Probability that a sensor fails, by severity."""
_MISALIGNMENT = 2.0
"""Metres by which a misaligned LiDAR is off."""


def _beams_reduced(
    labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None, severity: int
) -> FrameWithHealth:
    count = (16, 8, 4)[severity - 1]
    return _lidar(labelled, lambda points: lidar_corruption.evenly_spread_beams(points, count))


def _points_reduced(
    labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None, severity: int
) -> FrameWithHealth:
    share = (0.3, 0.2, 0.1)[severity - 1]

    def thinned(points: NDArray[np.float32]) -> CorruptedCloud:
        kept = np.sort(rng.permutation(len(points))[: round(len(points) * share)])
        return CorruptedCloud(points[kept], uniform_health(float(np.sqrt(share))))

    return _lidar(labelled, thinned)


def _brightness(
    labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None, severity: int
) -> FrameWithHealth:
    added = (0.5, 0.6, 0.7)[severity - 1]
    return _pictures(labelled, lambda view: picture_weather.brighter(view.image, added))


def _dark(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None, severity: int) -> FrameWithHealth:
    brightest, photons, noise = ((0.6, 250.0, 0.008), (0.4, 120.0, 0.018), (0.3, 50.0, 0.026))[severity - 1]
    return _pictures(labelled, lambda view: picture_weather.darker(view.image, brightest, photons, noise, rng))


def _fog(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None, severity: int) -> FrameWithHealth:
    extinction, backscatter = ((0.02, 0.008), (0.03, 0.008), (0.06, 0.05))[severity - 1]
    return sensor_failures.in_fog(labelled, extinction, backscatter, rng, loses=False)


def _snow(labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None, severity: int) -> FrameWithHealth:
    density, grain, threshold, streak, kept = (
        (0.3, 5.0, 0.9, 7.0, 0.9),
        (0.4, 4.0, 0.85, 8.0, 0.85),
        (0.5, 3.0, 0.8, 10.0, 0.8),
    )[severity - 1]
    fall = (Snowfall(0.5, 1.2), Snowfall(2.5, 1.6), Snowfall(1.5, 0.4))[severity - 1]
    seen = _pictures(
        labelled, lambda view: picture_weather.snowy(view.image, density, grain, threshold, streak, kept, rng)
    )
    lidar = _lidar(seen.labelled, lambda points: in_snow(points, fall, rng))
    return sensor_failures.joined(seen, lidar)


def _motion_blur(
    labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None, severity: int
) -> FrameWithHealth:
    deviation = (0.06, 0.1, 0.13)[severity - 1]

    def shaken(points: NDArray[np.float32]) -> CorruptedCloud:
        sweeps = sweep_indices(points[:, 4])
        shifts = rng.standard_normal((int(sweeps.max(initial=-1)) + 1, 3)) * deviation
        jitter = rng.standard_normal((len(points), 3)) * deviation * (0.15, 0.2, 0.12)
        moved = points.copy()
        moved[:, :3] += (shifts[sweeps] + jitter).astype(np.float32)
        return CorruptedCloud(moved, uniform_health(float(0.5 ** (2 * deviation))))

    seen = _pictures(labelled, lambda view: picture_weather.smeared(view.image, 100 * deviation, rng))
    return sensor_failures.joined(seen, _lidar(seen.labelled, shaken, moved=True))


def _cameras_missing(
    labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None, severity: int
) -> FrameWithHealth:
    views = labelled.frame.cameras
    lost = rng.random(len(views)) < _SHARES[severity - 1]
    pictures = {view.name: camera_corruption.black(view.image) for view, gone in zip(views, lost, strict=True) if gone}
    return with_pictures(labelled, pictures)


def _misaligned_in_space(
    labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None, severity: int
) -> FrameWithHealth:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("XYZ", 3 * (-float(severity),), degrees=True).as_matrix()
    turn[0, 3] = _MISALIGNMENT
    points = labelled.frame.points
    if points is None:
        return FrameWithHealth(labelled)
    offset = in_vehicle_axes(turn, lidar_corruption.forward_heading(labelled.frame))
    sweeps = sweep_indices(points[:, 4])
    failing = rng.random(64)[: int(sweeps.max(initial=-1)) + 1] < _SHARES[severity - 1]
    if not failing.any():
        return FrameWithHealth(labelled)
    wrong = failing[sweeps]
    moved, by_place = moved_lidar(points, offset)
    assert moved is not None
    mixed = np.where(wrong[:, None], moved, points)
    share = float(wrong.mean())
    health = (1 - share * (1 - by_place)).astype(np.float32)
    return with_cloud(labelled, CorruptedCloud(mixed, health), moved=True)


def _misaligned_in_time(
    labelled: LabelledFrame, rng: Generator, earlier: LabelledFrame | None, severity: int
) -> FrameWithHealth:
    views = labelled.frame.cameras
    late = rng.random(1 + len(views)) < _SHARES[severity - 1]
    if earlier is None:
        return FrameWithHealth(labelled)
    old = {
        view.name: camera_corruption.frozen(view, labelled, earlier)
        for view, failing in zip(views, late[1:], strict=True)
        if failing
    }
    seen = with_pictures(labelled, {name: picture for name, picture in old.items() if picture is not None})
    if not late[0]:
        return seen
    return sensor_failures.joined(seen, sensor_failures.delayed_lidar(seen.labelled, earlier))


def _lidar(
    labelled: LabelledFrame, failure: Callable[[NDArray[np.float32]], CorruptedCloud], *, moved: bool = False
) -> FrameWithHealth:
    points = labelled.frame.points
    return FrameWithHealth(labelled) if points is None else with_cloud(labelled, failure(points), moved=moved)


def _pictures(labelled: LabelledFrame, failure: Callable[[CameraView], CorruptedPicture]) -> FrameWithHealth:
    return with_pictures(labelled, {view.name: failure(view) for view in labelled.frame.cameras})


class Corruption(NamedTuple):
    """A corruption of the benchmark.

    Attributes:
        title: name in tables.
        severities: its scenario at each of the `SEVERITIES`.
        lidar, cameras: whether it changes the sensor's data.
    """

    title: str
    severities: tuple[FailureScenario, ...]
    lidar: bool
    cameras: bool

    @property
    def needs_earlier(self) -> bool:
        return self.severities[0].needs_earlier


def _corruption(
    name: str,
    title: str,
    failing: Callable[..., FrameWithHealth],
    sensors: Sequence[str],
    needs_earlier: bool = False,
) -> Corruption:
    severities = tuple(
        FailureScenario(partial(failing, severity=severity), f"{title}, severity {severity}", needs_earlier, name)
        for severity in SEVERITIES
    )
    return Corruption(title, severities, "lidar" in sensors, "cameras" in sensors)


_BOTH = ("lidar", "cameras")

CORRUPTIONS: Mapping[str, Corruption] = {
    "beamsreducing": _corruption("beamsreducing", "beam reduction", _beams_reduced, ["lidar"]),
    "brightness": _corruption("brightness", "brightness", _brightness, ["cameras"]),
    "dark": _corruption("dark", "darkness", _dark, ["cameras"]),
    "fog": _corruption("fog", "fog", _fog, _BOTH),
    "missingcamera": _corruption("missingcamera", "missing camera", _cameras_missing, ["cameras"]),
    "motionblur": _corruption("motionblur", "motion blur", _motion_blur, _BOTH),
    "pointsreducing": _corruption("pointsreducing", "points reduction", _points_reduced, ["lidar"]),
    "snow": _corruption("snow", "snow", _snow, _BOTH),
    "spatialmisalignment": _corruption("spatialmisalignment", "spatial misalignment", _misaligned_in_space, ["lidar"]),
    "temporalmisalignment": _corruption(
        "temporalmisalignment", "temporal misalignment", _misaligned_in_time, _BOTH, needs_earlier=True
    ),
}
"""The corruptions by their published names, in the published order."""


def scenario_name(corruption: str, severity: int) -> str:
    """Return the name of a corruption's scenario, such as ``fog 2``."""
    return f"{corruption} {severity}"


SCENARIOS: Mapping[str, FailureScenario] = {
    "clean": FAILURES["clean"],
    **{
        scenario_name(name, severity): scenario
        for name, corruption in CORRUPTIONS.items()
        for severity, scenario in zip(SEVERITIES, corruption.severities, strict=True)
    },
}
"""``clean`` and every corruption at every severity, by `scenario_name`."""
