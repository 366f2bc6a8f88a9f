# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Detections of one frame under every sensor failure and AQR mode."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.frames import LabelledFrames, earlier_frames
from aqr_perception.data.sequences import HISTORY_STEP
from aqr_perception.detector import Detector
from aqr_perception.evaluation.broken_weights import broken_weights
from aqr_perception.evaluation.replay import replay
from aqr_perception.evaluation.scenarios import Scenario, fail, needs_earlier
from aqr_perception.frame import Detections, GroundTruth, LabelledFrame
from aqr_perception.frame_features import FrameFeatures
from aqr_perception.options import AqrMode, AqrOptions, DetectionOptions


class FrameResult(NamedTuple):
    """Detections of one frame with its ground truth.

    Attributes:
        detections: detections by scenario and mode.
        truth: ground truth of the clean frame.
        has_lidar: whether the clean frame has LiDAR data.
        broken: (Q, 4) query weights with an intact and with a broken sensor by kind; see `broken_weights`.
        is_first: whether a scenario needs an earlier frame of the drive, which this frame lacks.
    """

    detections: Mapping[tuple[str, AqrMode], Detections]
    truth: GroundTruth
    has_lidar: bool
    broken: Mapping[str, NDArray[np.float64]]
    is_first: bool = False


@dataclass(frozen=True)
class FrameEvaluator:
    """Evaluation of a detector on single, independent frames in every scenario and mode.

    Attributes:
        history: number of earlier frames that the detector gets before each frame, with the same failure.
    """

    detector: Detector
    frames: LabelledFrames
    scenarios: Mapping[str, Scenario]
    modes: Sequence[AqrMode]
    seed: int
    history: int

    def __call__(self, index: int) -> FrameResult:
        """Return the result of one frame."""
        detector = self.detector
        labelled = self.frames[index]
        drive, earlier_ones = self._drive(index, labelled)
        detections = {}
        clean = detector.extract(labelled.frame)
        for name, scenario in self.scenarios.items():
            *earlier, failing = (
                fail(name, scenario, frame, self.seed, before)
                for frame, before in zip(drive, earlier_ones, strict=True)
            )
            # Features do not depend on the mode or on failures of other sensors.
            features = detector.extract(failing.frame, clean)
            for mode in self.modes:
                # Average precision needs detections with all scores.
                options = DetectionOptions(score_threshold=0.0, aqr=AqrOptions.of_model(mode))
                replay(detector, (frame.frame for frame in earlier), options)
                detections[name, mode] = detector.detect_in(features, options).detections
        has_lidar = labelled.frame.points is not None
        is_first = needs_earlier(self.scenarios) and earlier_ones[-1] is None
        return FrameResult(detections, labelled.truth, has_lidar, self._broken(index, labelled, clean), is_first)

    def _broken(self, index: int, labelled: LabelledFrame, clean: FrameFeatures) -> Mapping[str, NDArray[np.float64]]:
        if not self.detector.has_router:
            return {}
        earlier = earlier_frames(self.frames, index, 1, HISTORY_STEP)
        return broken_weights(self.detector, labelled, clean, index, self.seed, earlier[0] if earlier else None)

    def _drive(self, index: int, labelled: LabelledFrame) -> tuple[list[LabelledFrame], list[LabelledFrame | None]]:
        """Return the frames that the detector gets, the last one labelled, and the frame before each."""
        count = self.history + needs_earlier(self.scenarios)
        known = list(earlier_frames(self.frames, index, count, HISTORY_STEP)) if count else []
        drive = [*(known[-self.history :] if self.history else []), labelled]
        padded: list[LabelledFrame | None] = [None, *known, labelled]
        return drive, padded[-len(drive) - 1 : -1]
