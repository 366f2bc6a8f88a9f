# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Robustness table: detection scores in every failure scenario, AQR off and on, against the clean ground truth."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from aqr_perception.data.frames import LabelledFrames
from aqr_perception.data.sequences import HISTORY_FRAMES
from aqr_perception.detector import Detector
from aqr_perception.evaluation.broken_weights import BLACK, WeightChange, has_signed_weights, mean_changes
from aqr_perception.evaluation.frame_evaluator import FrameEvaluator, FrameResult
from aqr_perception.evaluation.metrics import DetectionScores, EvaluationError, Rules, evaluate
from aqr_perception.evaluation.nuscenes_results import write_results
from aqr_perception.evaluation.scenarios import Scenario, needs_earlier, usable
from aqr_perception.evaluation.workers import evaluate_frames, in_processes
from aqr_perception.frame import CLASSES, Detections, GroundTruth
from aqr_perception.options import AqrMode

CLEAN = "clean"
"""Name of the scenario without failures, the reference of the others."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RobustnessRow:
    """Scores of one scenario in one AQR mode.

    Attributes:
        share_of_clean: NDS divided by the clean NDS of the same mode; 0 if the clean NDS is 0.
        lidar_weight, camera_weight: score-weighted means over all detections, in 0..1, or in [-1, 1] for models with
            signed weights.
    """

    scenario: str
    mode: AqrMode
    scores: DetectionScores
    share_of_clean: float
    lidar_weight: float
    camera_weight: float


@dataclass(frozen=True)
class RobustnessTable:
    """Scores of every scenario in every AQR mode.

    Attributes:
        model: name of the detector's preset.
        frames: number of evaluated frames.
        seed: random seed of the scenarios.
        rows: scenarios in the given order, each in every mode.
        broken: weights of broken sensors by kind; empty without a router.
        history: number of earlier frames given to the detector before each frame; None for a detector without memory.
        classes: names of the model's classes.
        auto_mode: how the query weights acted in mode ``auto``, the mode that the model's preset names; None if this
            mode was not evaluated.
        left_out: scenarios that the frames do not allow, with the reason.
        first_frames: frames at the start of their drive, which stay intact in scenarios with old data; None without
            such scenarios.
    """

    model: str
    frames: int
    seed: int
    rows: tuple[RobustnessRow, ...]
    broken: Mapping[str, WeightChange] = field(default_factory=dict)
    history: int | None = None
    classes: tuple[str, ...] = CLASSES
    auto_mode: AqrMode | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    first_frames: int | None = None

    @property
    def scenarios(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.scenario for row in self.rows))

    @property
    def modes(self) -> tuple[AqrMode, ...]:
        return tuple(dict.fromkeys(row.mode for row in self.rows))

    def row(self, scenario: str, mode: AqrMode) -> RobustnessRow:
        """Return the row of a scenario and mode; raise KeyError if it was not measured."""
        for row in self.rows:
            if (row.scenario, row.mode) == (scenario, mode):
                return row
        raise KeyError((scenario, mode))

    def mean_failure_nds(self, mode: AqrMode) -> float | None:
        """Return the mean NDS of a mode over all failure scenarios; None if only the clean one was measured."""
        scores = [row.scores.nds for row in self.rows if row.mode == mode and row.scenario != CLEAN]
        return float(np.mean(scores)) if scores else None

    def as_dict(self) -> dict[str, object]:
        means = {mode: self.mean_failure_nds(mode) for mode in self.modes}
        broken = {kind: change.as_dict() for kind, change in self.broken.items()}
        return {**asdict(self), "mean_failure_nds": means, "broken": broken, "blackout": self._blackout()}

    def _blackout(self) -> dict[str, float | bool | None] | None:
        """Return the black camera's weights under the names of earlier versions' JSON; None without them."""
        if BLACK not in self.broken:
            return None
        names = {"broken": "black", "modality_broken": "modality_black"}
        values = self.broken[BLACK].as_dict()
        return {names.get(name, name): value for name, value in values.items() if name != "passed"}


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
    rules: Rules | None = None,
    result_file: Path | None = None,
) -> RobustnessTable:
    """Return the scores of a detector in every scenario and mode, against the clean frames' ground truth.

    Failures depend only on seed, scenario and frame: all modes, and all models with one seed, get the same failures.

    Args:
        detector: a detector; without a trained router, it runs only with AQR off.
        frames: the frames; objects without a LiDAR point count only if no frame has LiDAR.
        scenarios: scenarios by name, including `CLEAN`.
        modes: modes of AQR.
        history: number of earlier frames, with the same failure, given to a detector with memory before each frame;
            fewer at the start of a drive. 0 evaluates it without memory.
        workers: number of processes for the frames, then for the rows; see `evaluate_frames`.
        progress: whether to show progress bars.
        rules: of the metrics; see `metrics`.
        result_file: where to write the detections in clean frames, in the last mode, as a result file of nuScenes; only
            for frames from its tables.

    Raises:
        EvaluationError: there are no frames, no clean scenario, no worker, or no objects to detect.
    """
    if CLEAN not in scenarios:
        raise EvaluationError(
            f"the scenarios are {', '.join(scenarios) or 'none'}; add {CLEAN!r}, the reference of the others"
        )
    if not len(frames):
        raise EvaluationError("found no frames to evaluate, needed at least one; check --data-root and --frames")
    if workers < 1:
        raise EvaluationError(f"workers is {workers}, but must be at least 1")
    if not detector.has_router:
        _log.warning("%s has no trained router: only AQR off is evaluated", detector.preset_name)
        modes = ("off",)
    scenarios, left_out = usable(scenarios, frames)
    for name, reason in left_out.items():
        _log.warning("scenario %r is left out: it %s", name, reason)
    history = history if detector.remembers else 0
    evaluator = FrameEvaluator(detector, frames, scenarios, modes, seed, history)
    bar = partial(tqdm, leave=False, disable=not progress)
    results: list[FrameResult] = list(bar(evaluate_frames(evaluator, workers), "detecting", len(frames), unit="frame"))
    cases = [
        _Case(name, mode, [result.detections[name, mode] for result in results]) for name in scenarios for mode in modes
    ]
    truths, has_lidar = [result.truth for result in results], any(result.has_lidar for result in results)
    if result_file is not None and all(truth.world is not None for truth in truths):
        clean_cases = [case.detections for case in cases if (case.scenario, case.mode) == (CLEAN, modes[-1])]
        write_results(result_file, zip(clean_cases[0], truths, strict=True), detector.uses_cameras, detector.uses_lidar)
    score = partial(_score, truths=truths, has_lidar=has_lidar, rules=rules)
    rows: list[RobustnessRow] = list(bar(_score_all(cases, score, workers), "scoring", len(cases), unit="row"))
    clean = {row.mode: row.scores.nds for row in rows if row.scenario == CLEAN}
    shares = (row.scores.nds / clean[row.mode] if clean[row.mode] else 0.0 for row in rows)
    rows = [replace(row, share_of_clean=share) for row, share in zip(rows, shares, strict=True)]
    broken = [result.broken for result in results]
    return RobustnessTable(
        model=detector.preset_name,
        frames=len(frames),
        seed=seed,
        rows=tuple(rows),
        broken=mean_changes(broken, any(broken) and has_signed_weights(detector)),
        history=history if detector.remembers else None,
        classes=truths[0].classes,
        left_out=left_out,
        first_frames=sum(result.is_first for result in results) if needs_earlier(scenarios) else None,
    )


class _Case(NamedTuple):
    """Detections of every frame in one scenario and mode."""

    scenario: str
    mode: AqrMode
    detections: Sequence[Detections]


def _score_all(
    cases: Iterable[_Case], score: Callable[[_Case], RobustnessRow], workers: int
) -> Iterator[RobustnessRow]:
    if workers == 1:
        yield from map(score, cases)
        return
    yield from in_processes(score, cases, workers)


def _score(case: _Case, truths: Sequence[GroundTruth], has_lidar: bool, rules: Rules | None) -> RobustnessRow:
    """Return a row with a share of clean of 0, to be set later."""
    scores = evaluate(zip(case.detections, truths, strict=True), need_lidar_points=has_lidar, rules=rules)
    return RobustnessRow(case.scenario, case.mode, scores, 0.0, *_mean_sensor_weights(case.detections))


def _mean_sensor_weights(frames: Sequence[Detections]) -> tuple[float, float]:
    """Return the score-weighted mean weights of LiDAR and cameras over all detections; 0 without any."""
    scores = np.concatenate([detections.scores for detections in frames]).astype(np.float64)
    total = scores.sum()
    if not total > 0:
        return 0.0, 0.0
    lidar = np.concatenate([detections.lidar_weight for detections in frames])
    camera = np.concatenate([detections.camera_weight for detections in frames])
    return float(scores @ lidar / total), float(scores @ camera / total)
