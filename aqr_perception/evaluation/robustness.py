"""What is left of a detector when sensors fail: every scenario with AQR off and on, always against the clean truth."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from aqr_perception.data.frames import LabelledFrames
from aqr_perception.data.sequences import HISTORY_FRAMES
from aqr_perception.detector import Detector
from aqr_perception.evaluation.blackout import BlackoutWeights, mean_weights
from aqr_perception.evaluation.examination import Examination
from aqr_perception.evaluation.metrics import DetectionScores, EvaluationError, evaluate
from aqr_perception.evaluation.scenarios import Scenario
from aqr_perception.evaluation.workers import each_answers, each_result
from aqr_perception.frame import Detections, GroundTruth
from aqr_perception.options import AqrMode

CLEAN = "clean"
"""The scenario in which nothing fails, to which the others are compared."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RobustnessRow:
    """One scenario with AQR in one mode.

    Attributes:
        share_of_clean: its NDS by the same mode's clean NDS; 0 where that is 0.
        lidar_weight, camera_weight: of all detections, each counted by its score, in 0..1.
    """

    scenario: str
    mode: AqrMode
    scores: DetectionScores
    share_of_clean: float
    lidar_weight: float
    camera_weight: float


@dataclass(frozen=True)
class RobustnessTable:
    """Every scenario in every mode.

    Attributes:
        model: the detector's preset.
        frames: how many frames each figure comes from.
        seed: of the scenarios' chances.
        rows: by scenario in the order given, each in every mode.
        blackout: None where there is no router or no frame with a camera.
        history: frames that the detector was shown before each, of the same drive; None where it does not remember.
    """

    model: str
    frames: int
    seed: int
    rows: tuple[RobustnessRow, ...]
    blackout: BlackoutWeights | None = None
    history: int | None = None

    @property
    def scenarios(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.scenario for row in self.rows))

    @property
    def modes(self) -> tuple[AqrMode, ...]:
        return tuple(dict.fromkeys(row.mode for row in self.rows))

    def row(self, scenario: str, mode: AqrMode) -> RobustnessRow:
        """Return one row; KeyError where it was not measured."""
        for row in self.rows:
            if (row.scenario, row.mode) == (scenario, mode):
                return row
        raise KeyError((scenario, mode))

    def mean_failure_nds(self, mode: AqrMode) -> float | None:
        """Return a mode's NDS in the mean over all scenarios but the clean one; None where there is no other."""
        scores = [row.scores.nds for row in self.rows if row.mode == mode and row.scenario != CLEAN]
        return float(np.mean(scores)) if scores else None

    def as_dict(self) -> dict[str, object]:
        means = {mode: self.mean_failure_nds(mode) for mode in self.modes}
        blackout = self.blackout.as_dict() if self.blackout else None
        return {**asdict(self), "mean_failure_nds": means, "blackout": blackout}


def run(
    detector: Detector,
    frames: LabelledFrames,
    scenarios: Mapping[str, Scenario],
    modes: Sequence[AqrMode] = ("off", "auto"),
    *,
    seed: int = 0,
    history: int = HISTORY_FRAMES,
    workers: int = 1,
    progress: bool = True,
) -> RobustnessTable:
    """Detect in every frame under every scenario and mode, and score it against the frame's own, clean truth.

    A scenario's chances depend on the seed, its name and the frame alone: all modes, and all models evaluated with the
    same seed, meet the same failures.

    Args:
        detector: without a trained router, it is only run with AQR off.
        frames: `LabelledFrame.truth` counts objects without a LiDAR point only where no frame has LiDAR.
        scenarios: by name; `CLEAN` must be among them.
        modes: of AQR.
        history: for a detector that remembers: frames that it is shown before each, in which the same fails; where the
            drive starts, fewer. 0 takes its memory away.
        workers: processes that share the frames, then the rows; see `each_answers`.
        progress: whether to show progress bars.

    Raises:
        EvaluationError: there are no frames, no clean scenario, no worker, or no objects to look for.
    """
    if CLEAN not in scenarios:
        raise EvaluationError(
            f"the scenarios are {', '.join(scenarios) or 'none'}; add {CLEAN!r}, to which the others are compared"
        )
    if not len(frames):
        raise EvaluationError("there are no frames to evaluate; give at least one")
    if workers < 1:
        raise EvaluationError(f"workers is {workers}, but must be at least 1")
    if not detector.has_router:
        _log.warning("%s has no trained router: only AQR off is evaluated", detector.preset_name)
        modes = ("off",)
    shown = history if detector.remembers else 0
    examination = Examination(detector, frames, scenarios, modes, seed, shown)
    bar = partial(tqdm, leave=False, disable=not progress)
    answers = list(bar(each_answers(examination, workers), "detecting", len(frames), unit="frame"))
    asked = [(name, mode) for name in scenarios for mode in modes]
    truths, has_lidar = [answer.truth for answer in answers], any(answer.has_lidar for answer in answers)
    found = (_Found(name, mode, [answer.found[name, mode] for answer in answers]) for name, mode in asked)
    score = partial(_row, truths=truths, has_lidar=has_lidar)
    rows = list(bar(each_result(score, found, workers), "scoring", len(asked), unit="row"))
    clean = {row.mode: row.scores.nds for row in rows if row.scenario == CLEAN}
    shares = (row.scores.nds / clean[row.mode] if clean[row.mode] else 0.0 for row in rows)
    rows = [replace(row, share_of_clean=share) for row, share in zip(rows, shares, strict=True)]
    blackout = mean_weights([answer.blackout for answer in answers])
    remembered = shown if detector.remembers else None
    return RobustnessTable(detector.preset_name, len(frames), seed, tuple(rows), blackout, remembered)


class _Found(NamedTuple):
    """What was detected in every frame under one scenario and mode."""

    scenario: str
    mode: AqrMode
    detections: Sequence[Detections]


def _row(found: _Found, truths: Sequence[GroundTruth], has_lidar: bool) -> RobustnessRow:
    """Return a row whose share of clean is not known yet."""
    scores = evaluate(zip(found.detections, truths, strict=True), need_lidar_points=has_lidar)
    return RobustnessRow(found.scenario, found.mode, scores, 0.0, *_mean_weights(found.detections))


def _mean_weights(found: Sequence[Detections]) -> tuple[float, float]:
    """Return the LiDAR's and the cameras' mean weight, detections counted by their scores; 0 without any."""
    scores = np.concatenate([detections.scores for detections in found]).astype(np.float64)
    total = scores.sum()
    if not total > 0:
        return 0.0, 0.0
    lidar = np.concatenate([detections.lidar_weight for detections in found])
    camera = np.concatenate([detections.camera_weight for detections in found])
    return float(scores @ lidar / total), float(scores @ camera / total)
