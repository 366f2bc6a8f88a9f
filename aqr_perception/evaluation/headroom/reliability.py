# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Reliability of the query weights: whether a sensor with weight 0.8 has 0.8 of its health where the query is.

Reliability diagram, expected calibration error and Brier score (Brier 1950; Guo et al., arXiv:1706.04599), with the
sensors' health, which may lie between 0 and 1, as the outcome.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.health import SensorHealth
from aqr_perception.detector import Detector
from aqr_perception.evaluation.headroom.oracle import camera_health_at, lidar_health_at
from aqr_perception.frame import Frame, Result

BINS = 10
"""Bins of equal width over 0..1."""

CONFIDENT = 0.3
"""Score of the detections that the node reports by default."""


def _zeros() -> NDArray[np.float64]:
    return np.zeros(BINS)


@dataclass(frozen=True)
class WeightBins:
    """Sums over pairs of a weight and a health, by bin of the weight; sums of several frames add up.

    Attributes:
        counts, weights, health: (BINS,) number of pairs, and sums of their weights and healths.
        squared: sum of the squared differences.
    """

    counts: NDArray[np.float64] = field(default_factory=_zeros)
    weights: NDArray[np.float64] = field(default_factory=_zeros)
    health: NDArray[np.float64] = field(default_factory=_zeros)
    squared: float = 0.0

    @classmethod
    def of(cls, weights: NDArray[Any], health: NDArray[Any]) -> "WeightBins":
        """Return the sums over pairs (N,), (N,) in 0..1; a weight of 1 is in the last bin."""
        weights, health = weights.astype(np.float64), health.astype(np.float64)
        bins = np.minimum((weights * BINS).astype(np.int64), BINS - 1)

        def sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.bincount(bins, values, BINS).astype(np.float64)

        squared = float(((weights - health) ** 2).sum())
        return cls(sums(np.ones_like(weights)), sums(weights), sums(health), squared)

    def __add__(self, other: "WeightBins") -> "WeightBins":
        return WeightBins(
            self.counts + other.counts,
            self.weights + other.weights,
            self.health + other.health,
            self.squared + other.squared,
        )

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error: mean over the pairs of |mean weight - mean health| of their bin; None without."""
        return float(np.abs(self.weights - self.health).sum() / self.total) if self.total else None

    @property
    def brier(self) -> float | None:
        """Brier score: mean squared difference of weight and health; None without pairs."""
        return self.squared / self.total if self.total else None

    def means(self) -> list[tuple[float, float] | None]:
        """Return mean weight and mean health of each bin; None for empty bins."""
        sums = zip(self.counts, self.weights, self.health, strict=True)
        return [(float(weight / count), float(health / count)) if count else None for count, weight, health in sums]

    def as_dict(self) -> dict[str, object]:
        bins = [
            {
                "from": index / BINS,
                "to": (index + 1) / BINS,
                "count": int(self.counts[index]),
                "weight": mean[0] if mean else None,
                "health": mean[1] if mean else None,
            }
            for index, mean in enumerate(self.means())
        ]
        return {
            "count": self.total,
            "expected_calibration_error": self.calibration_error,
            "brier": self.brier,
            "bins": bins,
        }


@dataclass(frozen=True)
class Reliability:
    """Weights and healths of the LiDAR and of the cameras, of all detections and of confident ones.

    Attributes:
        lidar, cameras: pairs of all detections; a detection has one pair for each camera that sees its query.
        confident_lidar, confident_cameras: pairs of the detections with a score of at least `CONFIDENT`.
    """

    lidar: WeightBins = field(default_factory=WeightBins)
    cameras: WeightBins = field(default_factory=WeightBins)
    confident_lidar: WeightBins = field(default_factory=WeightBins)
    confident_cameras: WeightBins = field(default_factory=WeightBins)

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(
            self.lidar + other.lidar,
            self.cameras + other.cameras,
            self.confident_lidar + other.confident_lidar,
            self.confident_cameras + other.confident_cameras,
        )

    def as_dict(self) -> dict[str, object]:
        return {name: getattr(self, name).as_dict() for name in self.__dataclass_fields__}


def weight_reliability(detector: Detector, frame: Frame, result: Result, health: SensorHealth) -> Reliability:
    """Return the pairs of a frame's detections; none without a router or without the detections' queries.

    Weights of missing sensors, of the LiDAR outside its features and of cameras that do not see the query say nothing
    and are left out.

    Args:
        frame: the frame as it was given to the detector.
        result: its detections.
        health: health of its sensors.

    Raises:
        ValueError: the weights are signed, which are no probabilities.
    """
    if result.weight_maps.signed:
        raise ValueError(
            f"{detector.preset_name}: found weights in -1..1, needed weights in 0..1 to compare them with the sensors' "
            "health"
        )
    if result.queries is None or result.weight_maps.source != "router":
        return Reliability()
    detections, points = result.detections, result.queries.points
    confident = detections.scores >= CONFIDENT
    lidar, cameras = [], []
    if detector.uses_lidar and frame.points is not None:
        inside = detections.lidar_weight != 0
        lidar = [(detections.lidar_weight, lidar_health_at(health, points), inside)]
    if detector.uses_cameras:
        for index in range(len(frame.cameras)):
            weights, found = detections.camera_weights[:, index], camera_health_at(health, frame, index, points)
            cameras.append((weights, found, (weights != 0) & ~np.isnan(found)))

    def bins(
        triples: list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]], kept: NDArray[np.bool_]
    ) -> WeightBins:
        parts = (WeightBins.of(weights[used & kept], found[used & kept]) for weights, found, used in triples)
        return sum(parts, WeightBins())

    everything = np.ones_like(confident)
    return Reliability(
        bins(lidar, everything), bins(cameras, everything), bins(lidar, confident), bins(cameras, confident)
    )
