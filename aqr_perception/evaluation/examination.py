"""What a detector makes of one frame under every sensor failure, with AQR in every mode."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.frames import LabelledFrames, earlier_frames
from aqr_perception.data.sequences import HISTORY_STEP
from aqr_perception.detector import Detector
from aqr_perception.evaluation.blackout import query_weights
from aqr_perception.evaluation.replay import replay
from aqr_perception.evaluation.scenarios import Scenario, generator
from aqr_perception.frame import Detections, GroundTruth
from aqr_perception.options import AqrMode, AqrOptions, DetectionOptions


class Answers(NamedTuple):
    """What was found in one frame.

    Attributes:
        found: by scenario and mode.
        truth: the clean frame's.
        has_lidar: whether the clean frame has a sweep.
        blackout: see `query_weights`.
    """

    found: Mapping[tuple[str, AqrMode], Detections]
    truth: GroundTruth
    has_lidar: bool
    blackout: NDArray[np.float64]


@dataclass(frozen=True)
class Examination:
    """What is asked of every frame; frames are independent of each other.

    Attributes:
        history: frames that the detector is shown before each, in which the same fails.
    """

    detector: Detector
    frames: LabelledFrames
    scenarios: Mapping[str, Scenario]
    modes: Sequence[AqrMode]
    seed: int
    history: int

    def __call__(self, index: int) -> Answers:
        """Return the answers to one frame."""
        detector = self.detector
        labelled = self.frames[index]
        drive = (
            (*earlier_frames(self.frames, index, self.history, HISTORY_STEP), labelled) if self.history else (labelled,)
        )
        found = {}
        clean = detector.extract(labelled.frame)
        for name, scenario in self.scenarios.items():
            *earlier, failing = (scenario(frame, generator(name, frame, self.seed)) for frame in drive)
            # Features depend neither on the mode nor on what happens to other sensors.
            features = detector.extract(failing.frame, clean)
            for mode in self.modes:
                # Every detection counts, however low its score, as average precision wants.
                options = DetectionOptions(score_threshold=0.0, aqr=AqrOptions.of_model(mode))
                replay(detector, (frame.frame for frame in earlier), options)
                found[name, mode] = detector.detect_in(features, options).detections
        has_lidar = labelled.frame.points is not None
        return Answers(found, labelled.truth, has_lidar, query_weights(detector, labelled, index))
