# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Router weights of a sensor before and after it breaks: black, frozen, dirty or misaligned camera, shifted LiDAR."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.health import BROKEN, SensorHealth
from aqr_perception.detector import Detector, RoutedQueries
from aqr_perception.evaluation.headroom.known_failures import BROKEN_SENSORS, break_sensor
from aqr_perception.evaluation.headroom.oracle import camera_health_at, lidar_health_at
from aqr_perception.frame import Frame, LabelledFrame
from aqr_perception.frame_features import FrameFeatures
from aqr_perception.options import AqrOptions

BLACK = "black camera"
"""The kind of broken sensor that needs no earlier frame and no random numbers."""

MOST_KEPT = 0.5
"""Largest share of its weight that a broken sensor should keep."""


@dataclass(frozen=True)
class WeightChange:
    """Mean router weights of the queries at a sensor's broken places, with the sensor intact and broken.

    Weights are in 0..1 and compared by their ratio. Signed weights are in [-1, 1] and compared by their difference,
    because a ratio of means on both sides of 0 says nothing.

    Attributes:
        queries: number of queries in all frames.
        intact, broken: weight of the sensor in each state.
        modality_intact, modality_broken: weight of the sensor's modality for the same queries; working cameras also see
            some of a broken camera's.
        signed: whether weights may be negative.
    """

    queries: int
    intact: float
    broken: float
    modality_intact: float
    modality_broken: float
    signed: bool = False

    @property
    def ratio(self) -> float | None:
        """Ratio of the sensor's weight when broken to its weight when intact; None for signed weights or intact 0."""
        return self._ratio(self.broken, self.intact)

    @property
    def modality_ratio(self) -> float | None:
        """Ratio of the modality's weight when the sensor is broken to its weight when intact; see `ratio`."""
        return self._ratio(self.modality_broken, self.modality_intact)

    @property
    def difference(self) -> float:
        """The sensor's weight when broken minus its weight when intact."""
        return self.broken - self.intact

    @property
    def modality_difference(self) -> float:
        """The modality's weight when the sensor is broken minus its weight when intact."""
        return self.modality_broken - self.modality_intact

    @property
    def passed(self) -> bool | None:
        """Whether the broken sensor keeps at most `MOST_KEPT` of its weight; None without a ratio."""
        return None if self.ratio is None else self.ratio <= MOST_KEPT

    def as_dict(self) -> dict[str, float | bool | None]:
        if self.signed:
            compared = {"difference": self.difference, "modality_difference": self.modality_difference}
            return {**asdict(self), **compared}
        return {**asdict(self), "ratio": self.ratio, "modality_ratio": self.modality_ratio, "passed": self.passed}

    def _ratio(self, broken: float, intact: float) -> float | None:
        return None if self.signed or intact == 0 else broken / intact


def has_signed_weights(detector: Detector) -> bool:
    """Return whether the router weights of a detector may be negative."""
    # The options of `Detector.routed_queries`.
    return detector.has_router and detector.model.signed_weights(AqrOptions.of_model("off"))


def mean_change(by_frame: Sequence[NDArray[np.float64]], signed: bool = False) -> WeightChange | None:
    """Return the means over the queries of all frames, from results of `compared_weights`; None without queries.

    Args:
        signed: whether weights may be negative; see `has_signed_weights`.
    """
    queries = np.concatenate([np.zeros((0, 4)), *by_frame])
    if not len(queries):
        return None
    intact, broken, modality_intact, modality_broken = queries.mean(0).tolist()
    return WeightChange(len(queries), intact, broken, modality_intact, modality_broken, signed)


def mean_changes(
    by_frame: Sequence[Mapping[str, NDArray[np.float64]]], signed: bool = False
) -> Mapping[str, WeightChange]:
    """Return `mean_change` of each kind of broken sensor, from results of `broken_weights`; without kinds that no query
    shows.
    """
    kinds = dict.fromkeys(kind for rows in by_frame for kind in rows)
    changes = {kind: mean_change([rows[kind] for rows in by_frame], signed) for kind in kinds}
    return {kind: change for kind, change in changes.items() if change is not None}


def broken_weights(
    detector: Detector,
    labelled: LabelledFrame,
    intact: FrameFeatures,
    index: int,
    seed: int,
    earlier: LabelledFrame | None = None,
) -> Mapping[str, NDArray[np.float64]]:
    """Return `compared_weights` for each of the `BROKEN_SENSORS`; none without a router.

    Args:
        labelled: the intact frame.
        intact: its features.
        index: index of the frame, which determines the broken camera.
        seed: random seed of the failures.
        earlier: the drive's frame before, for frozen pictures; see `known_failures.failing_frame`.
    """
    if not detector.has_router:
        return {}
    before, found = None, {}
    for kind in BROKEN_SENSORS:
        failing = break_sensor(kind, labelled, index, seed, earlier)
        uses = detector.uses_lidar and failing.health.lidar.size > 1, detector.uses_cameras and failing.health.cameras
        if any(uses):
            before = before or detector.routed_queries(intact)
            features = detector.extract(failing.labelled.frame, intact)
            after = detector.routed_queries(features)
            found[kind] = compared_weights(detector, intact.frame, before, features.frame, after, failing.health)
    return found


def compared_weights(
    detector: Detector,
    intact: Frame,
    before: RoutedQueries,
    failing: Frame,
    after: RoutedQueries,
    health: SensorHealth,
    threshold: float = BROKEN,
) -> NDArray[np.float64]:
    """Return (Q, 4) for queries at broken places: weight of the sensor intact and broken, its modality's in both.

    A query counts once for each sensor that is broken at its place. Proposals that differ between the frames are left
    out, because a broken sensor gives other proposals. Missing sensors have no weights to compare.

    Args:
        intact, failing: the frames, as the detector used them.
        before, after: weights of their queries.
        health: health of the failing frame's sensors.
        threshold: largest health of a broken place.
    """
    same = (before.reference_points == after.reference_points).all(-1)
    lower, upper = np.split(np.asarray(detector.model.preset.point_range, np.float32), 2)
    points = before.reference_points * (upper - lower) + lower
    rows = [np.zeros((0, 4))]
    if detector.uses_lidar and intact.points is not None and failing.points is not None:
        # The router gives the LiDAR weight 0 for queries outside the BEV features.
        compared = same & (before.lidar_weight != 0) & (lidar_health_at(health, points) <= threshold)
        weights = [given.lidar_weight[compared] for given in (before, after)]
        rows.append(np.stack([*weights, *weights], axis=1))
    names = [view.name for view in intact.cameras]
    for index, view in enumerate(failing.cameras if detector.uses_cameras else ()):
        if view.name not in health.cameras or view.name not in names:
            continue
        camera = names.index(view.name)
        # The router gives a camera weight 0 for queries that it does not see; signed weights may be negative.
        seen = before.camera_weights[:, camera] != 0
        compared = same & seen & (camera_health_at(health, failing, index, points) <= threshold)
        columns = (
            *(before.camera_weights[compared, camera], after.camera_weights[compared, index]),
            *(before.camera_weight[compared], after.camera_weight[compared]),
        )
        rows.append(np.stack(columns, axis=1))
    return np.concatenate(rows).astype(np.float64)
