# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Robustness table: frames, truth, modes, shares and weights."""

import dataclasses
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from aqr_perception.detector import Detector
from aqr_perception.evaluation.metrics import EvaluationError
from aqr_perception.evaluation.robustness import run
from aqr_perception.evaluation.scenarios import Scenario
from aqr_perception.frame import Detections, Frame, GroundTruth, LabelledFrame
from aqr_perception.options import DetectionOptions


def _frame(index: int, count: int = 6) -> LabelledFrame:
    random = np.random.default_rng(index)
    boxes = np.zeros((count, 9), np.float32)
    boxes[:, 0] = np.arange(count) * 6 - 15
    boxes[:, 1] = random.uniform(-5, 5, count)
    boxes[:, 3:6] = 2
    truth = GroundTruth(
        boxes,
        np.arange(count) % 3,
        np.arange(count),
        np.full(count, 9),
        np.zeros((count, 0), np.float32),
    )
    return LabelledFrame(Frame(index, np.zeros((count, 5), np.float32)), truth)


class _TruthDetector:
    """A stand-in detector: it finds as many objects as the sweep has points; with AQR it finds all."""

    preset_name = "truth_detector"
    has_router = True
    uses_cameras = uses_lidar = False
    remembers = False

    def __init__(self, frames: list[LabelledFrame]) -> None:
        self._truths = {labelled.frame.stamp_ns: labelled.truth for labelled in frames}
        self.seen: list[tuple[int, str, int]] = []
        self.forgot = 0

    def forget(self) -> None:
        self.forgot = len(self.seen)

    def detect(self, frame: Frame, options: DetectionOptions) -> SimpleNamespace:
        return self.detect_in(self.extract(frame), options)

    def extract(self, frame: Frame, known: SimpleNamespace | None = None) -> SimpleNamespace:
        return SimpleNamespace(frame=frame)

    def detect_in(self, features: SimpleNamespace, options: DetectionOptions) -> SimpleNamespace:
        frame = features.frame
        truth = self._truths[frame.stamp_ns]
        assert frame.points is not None and options.score_threshold == 0
        self.seen.append((frame.stamp_ns, options.aqr.mode, len(frame.points)))
        objects = truth.keep(np.arange(len(truth) if options.aqr.mode == "auto" else len(frame.points)))
        scores = np.linspace(0.9, 0.1, len(objects), dtype=np.float32)
        lidar, camera = scores, 1 - scores
        detections = Detections(
            objects.boxes, scores, objects.labels, lidar, camera, np.zeros((len(objects), 0), np.float32)
        )
        return SimpleNamespace(detections=detections)


def _clean(labelled: LabelledFrame, _: np.random.Generator) -> LabelledFrame:
    return labelled


def _points_lost(labelled: LabelledFrame, random: np.random.Generator) -> LabelledFrame:
    """Remove most points, also from the truth, as a scenario may."""
    points = labelled.frame.points
    assert points is not None
    left = int(random.integers(2, 4))
    truth = dataclasses.replace(labelled.truth, lidar_points=np.where(np.arange(len(labelled.truth)) < left, 9, 0))
    return dataclasses.replace(labelled, frame=dataclasses.replace(labelled.frame, points=points[:left]), truth=truth)


SCENARIOS: dict[str, Scenario] = {"clean": _clean, "points_lost": _points_lost}


@pytest.fixture
def frames() -> list[LabelledFrame]:
    return [_frame(index) for index in range(5)]


def test_objects_hidden_by_a_failure_count_as_missed(frames: list[LabelledFrame]) -> None:
    table = run(cast(Detector, _TruthDetector(frames)), frames, SCENARIOS, progress=False)
    lost, kept = table.row("points_lost", "off"), table.row("points_lost", "auto")
    assert lost.scores.objects == kept.scores.objects == 30
    assert lost.scores.mean_ap < 0.6 and kept.scores.mean_ap == pytest.approx(1)


def test_shares_refer_to_the_clean_score_of_the_same_mode(frames: list[LabelledFrame]) -> None:
    table = run(cast(Detector, _TruthDetector(frames)), frames, SCENARIOS, progress=False)
    assert table.scenarios == ("clean", "points_lost") and table.modes == ("off", "auto")
    for mode in table.modes:
        clean, failing = table.row("clean", mode), table.row("points_lost", mode)
        assert clean.share_of_clean == 1
        assert failing.share_of_clean == pytest.approx(failing.scores.nds / clean.scores.nds)
        assert table.mean_failure_nds(mode) == failing.scores.nds


def test_all_modes_see_the_same_failures_and_a_seed_repeats_them(frames: list[LabelledFrame]) -> None:
    def failures(seed: int) -> dict[str, list[tuple[int, int]]]:
        detector = _TruthDetector(frames)
        run(cast(Detector, detector), frames, SCENARIOS, seed=seed, progress=False)
        return {
            mode: [(stamp, points) for stamp, seen, points in detector.seen if seen == mode] for mode in ("off", "auto")
        }

    first = failures(seed=0)
    assert first["off"] == first["auto"] and first == failures(seed=0) and first != failures(seed=1)


def test_a_detector_with_memory_sees_the_same_failure_before_each_frame(frames: list[LabelledFrame]) -> None:
    class Drive(list[LabelledFrame]):
        def earlier_frames(self, index: int, count: int, step: float) -> list[LabelledFrame]:
            return self[max(index - count, 0) : index]

    class Remembering(_TruthDetector):
        """Records which frames it has seen since it last forgot."""

        remembers = True

        def detect_in(self, features: SimpleNamespace, options: DetectionOptions) -> SimpleNamespace:
            result = super().detect_in(features, options)
            memories.append([stamp for stamp, _, _ in self.seen[self.forgot :]])
            return result

    for history, longest in ((2, {(0,), (0, 1), (0, 1, 2), (1, 2, 3), (2, 3, 4)}), (0, {(i,) for i in range(5)})):
        memories: list[list[int]] = []
        table = run(cast(Detector, Remembering(frames)), Drive(frames), SCENARIOS, history=history, progress=False)
        assert table.history == history
        assert longest <= set(map(tuple, memories)) and max(map(len, memories)) == history + 1
    plain = run(cast(Detector, _TruthDetector(frames)), Drive(frames), SCENARIOS, progress=False)
    assert plain.history is None


def test_sensor_weights_are_score_weighted_means(frames: list[LabelledFrame]) -> None:
    row = run(cast(Detector, _TruthDetector(frames)), frames, SCENARIOS, progress=False).row("clean", "off")
    scores = np.linspace(0.9, 0.1, 6)
    assert row.lidar_weight == pytest.approx((scores**2).sum() / scores.sum(), abs=1e-6)
    assert row.camera_weight == pytest.approx(1 - row.lidar_weight, abs=1e-6)


def test_a_detector_without_a_router_runs_with_aqr_off_only(frames: list[LabelledFrame]) -> None:
    detector = _TruthDetector(frames)
    detector.has_router = False
    table = run(cast(Detector, detector), frames, SCENARIOS, progress=False)
    assert table.modes == ("off",) and not table.broken


def test_frames_without_any_lidar_count_objects_without_points(frames: list[LabelledFrame]) -> None:
    def without_lidar(labelled: LabelledFrame) -> LabelledFrame:
        truth = dataclasses.replace(labelled.truth, lidar_points=np.zeros(len(labelled.truth), np.int64))
        return dataclasses.replace(labelled, frame=dataclasses.replace(labelled.frame, points=None), truth=truth)

    class Blind(_TruthDetector):
        def detect_in(self, features: SimpleNamespace, options: DetectionOptions) -> SimpleNamespace:
            frame = dataclasses.replace(features.frame, points=np.zeros((0, 5), np.float32))
            return super().detect_in(SimpleNamespace(frame=frame), options)

    table = run(cast(Detector, Blind(frames)), [without_lidar(frame) for frame in frames], {"clean": _clean}, ["auto"])
    assert table.row("clean", "auto").scores.objects == 30


def test_invalid_arguments_are_rejected(frames: list[LabelledFrame]) -> None:
    detector = cast(Detector, _TruthDetector(frames))
    with pytest.raises(EvaluationError, match="points_lost; add 'clean'"):
        run(detector, frames, {"points_lost": _points_lost})
    with pytest.raises(EvaluationError, match="no frames"):
        run(detector, [], SCENARIOS)
    with pytest.raises(EvaluationError, match="workers is 0"):
        run(detector, frames, SCENARIOS, workers=0)
