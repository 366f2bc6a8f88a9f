# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Detections of one frame in every failure: with the broken tokens left in, taken out by the oracle, and with AQR."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.frames import LabelledFrames, earlier_frames
from aqr_perception.data.health import BROKEN, SensorHealth
from aqr_perception.detector import Detector, RoutedQueries
from aqr_perception.evaluation.broken_weights import compared_weights
from aqr_perception.evaluation.headroom.attention_shares import AttentionShares, attention_shares
from aqr_perception.evaluation.headroom.known_failures import DELAY, failing_frame
from aqr_perception.evaluation.headroom.oracle import broken_sensors, broken_tokens, removed_share
from aqr_perception.evaluation.headroom.reliability import Reliability, weight_reliability
from aqr_perception.evaluation.headroom.shared_base import BaseResult
from aqr_perception.evaluation.scenarios import FailureScenario, needs_earlier
from aqr_perception.frame import Detections, Frame, GroundTruth, Result
from aqr_perception.frame_features import FrameFeatures
from aqr_perception.models.removed_tokens import TokenMask
from aqr_perception.options import AqrMode, AqrOptions, DetectionOptions


class FailureResult(NamedTuple):
    """One frame in one failure.

    Attributes:
        left_in: detections with AQR off.
        taken_out: detections with AQR off and without the broken tokens; None if no token is broken: as `left_in`.
        removed: share of the tokens that the oracle takes out.
        attention_off: attention with AQR off.
        by_mode: detections with AQR by mode, without off.
        attention_on: attention in the last mode.
        weights: (Q, 4), see `compared_weights`.
        reliability: pairs of weight and health in the last mode; empty for signed weights.
    """

    left_in: Detections
    taken_out: Detections | None
    removed: float
    attention_off: AttentionShares
    by_mode: Mapping[AqrMode, Detections]
    attention_on: AttentionShares
    weights: NDArray[np.float64]
    reliability: Reliability

    @property
    def base(self) -> BaseResult:
        """What does not depend on the router."""
        return BaseResult(self.left_in, self.taken_out, self.removed, self.attention_off)


class FrameHeadroom(NamedTuple):
    """One frame in every failure, with its ground truth.

    Attributes:
        failures: results by failure.
        truth: ground truth of the intact frame.
        has_lidar: whether the intact frame has LiDAR data.
        is_first: whether a failure needs an earlier frame of the drive, which this frame lacks.
    """

    failures: Mapping[str, FailureResult]
    truth: GroundTruth
    has_lidar: bool
    is_first: bool = False


@dataclass(frozen=True)
class HeadroomEvaluator:
    """Evaluation of single, independent frames in every failure.

    Attributes:
        failures: failures by name.
        modes: modes of AQR, without off; empty without a router.
        seed: random seed of the failures.
        threshold: largest health of a broken place.
        base: results without AQR of each frame, from a detector that differs in its router only; None: they are
            computed.
    """

    detector: Detector
    frames: LabelledFrames
    failures: Mapping[str, FailureScenario]
    modes: Sequence[AqrMode]
    seed: int
    threshold: float = BROKEN
    base: Sequence[Mapping[str, BaseResult]] | None = None

    def __call__(self, index: int) -> FrameHeadroom:
        """Return the results of one frame."""
        detector, labelled = self.detector, self.frames[index]
        before = earlier_frames(self.frames, index, 1, DELAY)
        intact = detector.extract(labelled.frame)
        routed = detector.routed_queries(intact) if detector.has_router else None
        results = {}
        for name, failure in self.failures.items():
            failing = failing_frame(name, failure, labelled, self.seed, before[0] if before else None)
            features = detector.extract(failing.labelled.frame, intact)
            mask = broken_tokens(detector, features, failing.health, self.threshold)
            broken = broken_sensors(mask)
            if self.base is None:
                off, base = self._base(features, mask)
            else:
                off, base = None, self.base[index][name]
            by_mode = {mode: self._detect(features, mode) for mode in self.modes}
            last = list(by_mode.values())[-1] if by_mode else off or self._detect(features, "off")
            frame = failing.labelled.frame
            signed = last.weight_maps.signed
            results[name] = FailureResult(
                *base,
                {mode: _without_weights(by_mode[mode].detections) for mode in self.modes},
                attention_shares(frame, last, broken),
                self._weights(intact.frame, routed, features, failing.health) if broken else np.zeros((0, 4)),
                Reliability() if signed else weight_reliability(detector, frame, last, failing.health),
            )
        is_first = needs_earlier(self.failures) and not before
        return FrameHeadroom(results, labelled.truth, labelled.frame.points is not None, is_first)

    def _base(self, features: FrameFeatures, mask: TokenMask) -> tuple[Result, BaseResult]:
        """Return the result with AQR off, and what the measurement keeps of it and of the oracle's."""
        off, broken = self._detect(features, "off"), broken_sensors(mask)
        taken_out = self._detect(self.detector.without_tokens(features, mask), "off") if broken else None
        return off, BaseResult(
            _without_weights(off.detections),
            None if taken_out is None else _without_weights(taken_out.detections),
            removed_share(mask, features),
            attention_shares(features.frame, off, broken),
        )

    def _detect(self, features: FrameFeatures, mode: AqrMode) -> Result:
        # Average precision needs detections with all scores.
        options = DetectionOptions(score_threshold=0.0, aqr=AqrOptions.of_model(mode), attention=True)
        return self.detector.detect_in(features, options)

    def _weights(
        self, intact: Frame, routed: RoutedQueries | None, features: FrameFeatures, health: SensorHealth
    ) -> NDArray[np.float64]:
        if routed is None:
            return np.zeros((0, 4))
        after = self.detector.routed_queries(features)
        return compared_weights(self.detector, intact, routed, features.frame, after, health, self.threshold)


def _without_weights(detections: Detections) -> Detections:
    """Return detections without their weights, which the metrics do not use and which take a third of the memory."""
    nothing = np.zeros(0, np.float32)
    return replace(detections, lidar_weight=nothing, camera_weight=nothing, camera_weights=nothing[:, None])
