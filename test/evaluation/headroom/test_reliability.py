# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Reliability of made-up weights, and which pairs of a frame count."""

import dataclasses

import numpy as np
import pytest

from aqr_perception.data.corruption.lidar_corruption import CELLS, REACH
from aqr_perception.data.health import HEALTH_GRID, SensorHealth
from aqr_perception.detector import Detector
from aqr_perception.evaluation.headroom.reliability import BINS, Reliability, WeightBins, weight_reliability
from aqr_perception.frame import LabelledFrame
from aqr_perception.options import AqrOptions, DetectionOptions


def test_bins_error_and_score_of_made_up_pairs() -> None:
    weights = np.array([0.8, 0.8, 0.8, 0.8, 0.8, 0.15, 1.0, 0.0])
    health = np.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.5, 1.0, 0.0])
    bins = WeightBins.of(weights, health)
    assert bins.counts.tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 5, 1] and bins.total == 8
    assert bins.calibration_error == pytest.approx(abs(0.15 - 0.5) / 8)
    assert bins.brier == pytest.approx((4 * 0.04 + 0.64 + 0.35**2) / 8)
    assert bins.means()[8] == pytest.approx((0.8, 0.8)) and bins.means()[5] is None
    stored = bins.as_dict()
    assert stored["count"] == 8 and len(stored["bins"]) == BINS  # type: ignore[arg-type]


def test_parts_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    weights, health = rng.random(100), rng.random(100)
    whole = WeightBins.of(weights, health)
    parts = WeightBins.of(weights[:30], health[:30]) + WeightBins.of(weights[30:], health[30:]) + WeightBins()
    assert parts.calibration_error == pytest.approx(whole.calibration_error)
    assert parts.brier == pytest.approx(whole.brier) and parts.counts.tolist() == whole.counts.tolist()


def test_without_pairs_there_are_no_figures() -> None:
    assert WeightBins().calibration_error is None and WeightBins().brier is None


def test_pairs_are_weights_and_health_where_the_queries_are(routed: Detector, small: LabelledFrame) -> None:
    options = DetectionOptions(score_threshold=0.0, aqr=AqrOptions.of_model("auto"))
    result = routed.detect(small.frame, options)
    health = SensorHealth(
        np.full((CELLS, CELLS), 0.25, np.float32),
        REACH,
        {small.frame.cameras[0].name: np.full(HEALTH_GRID, 0.5, np.float32)},
    )
    found = weight_reliability(routed, small.frame, result, health)
    detections = result.detections
    assert found.lidar.total == int((detections.lidar_weight != 0).sum()) > 0
    assert found.lidar.weights.sum() == pytest.approx(detections.lidar_weight.sum(), rel=1e-5)
    assert found.lidar.health.sum() == pytest.approx(0.25 * found.lidar.total)
    first, second = (int((detections.camera_weights[:, camera] != 0).sum()) for camera in range(2))
    assert first and second and found.cameras.total == pytest.approx(first + second, abs=1)
    assert found.cameras.health.sum() == pytest.approx(0.5 * first + second, abs=1.1)
    assert found.confident_lidar.total == int(((detections.scores >= 0.3) & (detections.lidar_weight != 0)).sum())


def test_missing_sensors_have_no_pairs(routed: Detector, small: LabelledFrame) -> None:
    frame = dataclasses.replace(small.frame, points=None)
    found = weight_reliability(routed, frame, routed.detect(frame), SensorHealth())
    assert found.lidar.total == 0


def test_signed_weights_are_refused_by_name(routed: Detector, small: LabelledFrame) -> None:
    result = routed.detect(small.frame)
    signed = dataclasses.replace(result, weight_maps=dataclasses.replace(result.weight_maps, signed=True))
    with pytest.raises(ValueError, match=r"found weights in -1\.\.1, needed weights in 0\.\.1"):
        weight_reliability(routed, small.frame, signed, SensorHealth())


def test_reliabilities_add_up() -> None:
    one = Reliability(lidar=WeightBins.of(np.array([0.5]), np.array([1.0])))
    assert (one + one + Reliability()).lidar.total == 2
