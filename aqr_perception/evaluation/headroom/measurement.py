# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Measurement of the headroom table: detection in all frames, then the metrics of every failure."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from tqdm import tqdm

from aqr_perception.data.frames import LabelledFrames
from aqr_perception.data.health import BROKEN
from aqr_perception.detector import Detector
from aqr_perception.evaluation.broken_weights import has_signed_weights, mean_change
from aqr_perception.evaluation.headroom.attention_shares import AttentionShares
from aqr_perception.evaluation.headroom.frame_headroom import FailureResult, FrameHeadroom, HeadroomEvaluator
from aqr_perception.evaluation.headroom.headroom_table import HeadroomRow, HeadroomTable, Score
from aqr_perception.evaluation.headroom.known_failures import FAILURES
from aqr_perception.evaluation.headroom.reliability import Reliability
from aqr_perception.evaluation.headroom.shared_base import BaseResults, SharedBases
from aqr_perception.evaluation.metrics import DetectionScores, EvaluationError, Rules, evaluate
from aqr_perception.evaluation.scenarios import FailureScenario, needs_earlier, usable
from aqr_perception.evaluation.workers import evaluate_frames, in_processes
from aqr_perception.frame import Detections, GroundTruth
from aqr_perception.options import AqrMode, AqrOptions

_LEFT_IN, _TAKEN_OUT = "left in", "taken out"

_log = logging.getLogger(__name__)


class _Case(NamedTuple):
    """Detections of every frame in one failure and one way: left in, taken out, or a mode of AQR."""

    failure: str
    way: str
    detections: Sequence[Detections]


def measure(
    detector: Detector,
    frames: LabelledFrames,
    failures: Mapping[str, FailureScenario] = FAILURES,
    modes: Sequence[AqrMode] = ("auto",),
    *,
    seed: int = 0,
    threshold: float = BROKEN,
    workers: int = 1,
    progress: bool = True,
    rules: Rules | None = None,
    bases: SharedBases | None = None,
) -> HeadroomTable:
    """Return the headroom table of a detector, against the intact frames' ground truth.

    All failures of a frame are the same for every model and mode.

    Args:
        detector: a detector whose model can leave out tokens; without a trained router, only AQR off is measured.
        frames: the frames; objects without a LiDAR point count only if no frame has LiDAR.
        failures: failures by name.
        modes: modes of AQR; ``off`` is always measured.
        threshold: largest health of a broken place, 0..1.
        workers: number of processes for the frames, then for the metrics.
        progress: whether to show progress bars.
        rules: of the metrics; see `metrics`.
        bases: results without AQR of earlier calls with the same frames and settings, to which this one's are added.

    Raises:
        OptionError: the model's router cannot act in one of the modes.
        EvaluationError: there are no frames, no failures, no worker or no objects to detect, the threshold is outside
            0..1, or the model cannot leave out tokens.
    """
    _check(detector, frames, failures, threshold, workers)
    modes = tuple(dict.fromkeys(mode for mode in modes if mode != "off"))
    if modes and not detector.has_router:
        _log.warning("%s has no trained router: only AQR off is measured", detector.preset_name)
        modes = ()
    for mode in modes:
        detector.check_aqr(AqrOptions.of_model(mode))
    possible, left_out = usable(failures, frames)
    failures = {name: failure for name, failure in failures.items() if name in possible}
    for name, reason in left_out.items():
        _log.warning("failure %r is left out: it %s", name, reason)
    if not failures:
        raise EvaluationError(f"found no failure that these frames allow: {', '.join(left_out)} {reason}")
    base = None if bases is None else bases.of(detector)
    evaluator = HeadroomEvaluator(
        detector, frames, failures, modes, seed, threshold, None if base is None else base.frames
    )
    bar = partial(tqdm, leave=False, disable=not progress)
    found: list[FrameHeadroom] = list(bar(evaluate_frames(evaluator, workers), "detecting", len(frames), unit="frame"))
    known = {} if base is None else base.scores
    cases = [case for case in _cases(found, failures, modes) if (case.failure, case.way) not in known]
    score = partial(
        _score, truths=[frame.truth for frame in found], need_lidar=any(frame.has_lidar for frame in found), rules=rules
    )
    scored = map(score, cases) if workers == 1 else in_processes(score, cases, workers)
    scores = dict(known)
    for case, result in zip(cases, bar(scored, "scoring", len(cases), unit="row"), strict=True):
        scores[case.failure, case.way] = result
    if bases is not None and base is None:
        frames_ = [{name: result.base for name, result in frame.failures.items()} for frame in found]
        ways = {key: result for key, result in scores.items() if key[1] in (_LEFT_IN, _TAKEN_OUT)}
        bases.keep(detector, BaseResults(frames_, ways))
    signed = bool(modes) and has_signed_weights(detector)
    rows = tuple(_row(name, modes, [frame.failures[name] for frame in found], scores, signed) for name in failures)
    reliability = None
    if modes and not signed:
        pairs = (result.reliability for frame in found for result in frame.failures.values())
        reliability = sum(pairs, Reliability())
    return HeadroomTable(
        detector.preset_name,
        str(detector.weights),
        len(frames),
        next(iter(scores.values())).objects,
        seed,
        threshold,
        rows,
        reliability,
        signed,
        detector.model.preset.aqr.mode if "auto" in modes else None,
        left_out,
        sum(frame.is_first for frame in found) if needs_earlier(failures) else None,
    )


def _check(
    detector: Detector, frames: LabelledFrames, failures: Mapping[str, FailureScenario], threshold: float, workers: int
) -> None:
    if not detector.model.removes_tokens:
        raise EvaluationError(
            f"{detector.preset_name}: found a model whose tokens cannot be taken out, needed CMT or AQR-CMT; evaluate "
            "it with --benchmark robustness"
        )
    if not len(frames):
        raise EvaluationError("found no frames to evaluate, needed at least one; check --data-root and --frames")
    if not failures:
        raise EvaluationError(f"found no failures, needed at least one of {', '.join(FAILURES)}")
    if not 0 <= threshold <= 1:
        raise EvaluationError(f"found {threshold:g} as the largest health of a broken place, needed 0..1")
    if workers < 1:
        raise EvaluationError(f"workers is {workers}, but must be at least 1")


def _cases(
    found: Sequence[FrameHeadroom], failures: Mapping[str, FailureScenario], modes: Sequence[AqrMode]
) -> Iterator[_Case]:
    for name in failures:
        results = [frame.failures[name] for frame in found]
        yield _Case(name, _LEFT_IN, [result.left_in for result in results])
        if any(result.taken_out is not None for result in results):
            yield _Case(
                name,
                _TAKEN_OUT,
                [result.left_in if result.taken_out is None else result.taken_out for result in results],
            )
        for mode in modes:
            yield _Case(name, mode, [result.by_mode[mode] for result in results])


def _score(case: _Case, truths: Sequence[GroundTruth], need_lidar: bool, rules: Rules | None) -> DetectionScores:
    return evaluate(zip(case.detections, truths, strict=True), need_lidar_points=need_lidar, rules=rules)


def _row(
    name: str,
    modes: Sequence[AqrMode],
    results: Sequence[FailureResult],
    scores: Mapping[tuple[str, str], DetectionScores],
    signed: bool,
) -> HeadroomRow:
    def score(way: str) -> Score:
        found = scores.get((name, way), scores[name, _LEFT_IN])
        return Score(found.nds, found.mean_ap)

    return HeadroomRow(
        name,
        score(_LEFT_IN),
        score(_TAKEN_OUT),
        {mode: score(mode) for mode in modes},
        sum(result.removed for result in results) / len(results),
        sum((result.attention_off for result in results), AttentionShares()),
        sum((result.attention_on for result in results), AttentionShares()),
        mean_change([result.weights for result in results], signed),
    )
