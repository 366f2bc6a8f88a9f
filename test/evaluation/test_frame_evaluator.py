# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A frame's results in every scenario and mode equal separate detections."""

import dataclasses

import numpy as np
import pytest
from helpers.failing_frames import apply

from aqr_perception.detector import Detector
from aqr_perception.evaluation.frame_evaluator import FrameEvaluator
from aqr_perception.evaluation.replay import replay
from aqr_perception.evaluation.scenarios import SCENARIOS
from aqr_perception.frame import Detections, Frame, LabelledFrame
from aqr_perception.options import AqrMode, AqrOptions, DetectionOptions

MODES: tuple[AqrMode, ...] = ("off", "auto")


def same(first: Detections, second: Detections) -> bool:
    pairs = ((getattr(first, field.name), getattr(second, field.name)) for field in dataclasses.fields(Detections))
    return all(np.array_equal(one, other) for one, other in pairs)


def options(mode: AqrMode) -> DetectionOptions:
    return DetectionOptions(score_threshold=0.0, aqr=AqrOptions.of_model(mode))


@pytest.mark.slow
def test_shared_features_do_not_change_detections(opinionated: Detector, small: LabelledFrame) -> None:
    scenarios = {name: SCENARIOS[name] for name in ("clean", "4 beams", "all cameras gone", "one camera gone")}
    result = FrameEvaluator(opinionated, [small], scenarios, MODES, seed=0, history=0)(0)
    assert set(result.detections) == {(name, mode) for name in scenarios for mode in MODES}
    for (name, mode), detections in result.detections.items():
        separate = opinionated.detect(apply(name, small).frame, options(mode)).detections
        assert same(detections, separate), (name, mode)
    assert not same(result.detections["clean", "off"], result.detections["clean", "auto"])
    assert result.truth is small.truth and result.has_lidar and len(result.broken["black camera"])


@pytest.mark.slow
def test_each_branch_runs_once_for_each_distinct_input(
    opinionated: Detector, small: LabelledFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"image_features": 0, "bev_features": 0, "decode": 0}

    def count(name: str) -> None:
        method = getattr(opinionated.model, name)

        def counted(*arguments: object, **named: object) -> object:
            calls[name] += 1
            return method(*arguments, **named)

        monkeypatch.setattr(opinionated.model, name, counted)

    for name in calls:
        count(name)
    monkeypatch.setattr("aqr_perception.evaluation.frame_evaluator.broken_weights", lambda *_: {})
    FrameEvaluator(opinionated, [small], SCENARIOS, MODES, seed=0, history=0)(0)
    # Clean, one camera gone, half occluded, all gone; clean, four beams, field of view, half the objects, gone.
    assert calls == {"image_features": 4, "bev_features": 5, "decode": 2 * len(SCENARIOS)}


@pytest.mark.slow
def test_a_detector_with_memory_sees_the_same_failure_before_in_every_mode(small: LabelledFrame) -> None:
    def frame_at(half_seconds: int) -> LabelledFrame:
        views = tuple(
            dataclasses.replace(view, image=np.roll(view.image, 99 * half_seconds, 1)) for view in small.frame.cameras
        )
        frame = Frame(half_seconds * 500_000_000, None, views, to_fixed=np.eye(4))
        return dataclasses.replace(small, frame=frame)

    class Drive(list[LabelledFrame]):
        def earlier_frames(self, index: int, count: int, step: float) -> list[LabelledFrame]:
            return self[max(index - count, 0) : index]

    drive = Drive(map(frame_at, range(2)))
    detector = Detector("petrv2_tiny", "random", device="cpu", precision="fp32")
    scenarios = {name: SCENARIOS[name] for name in ("clean", "one camera gone")}
    result = FrameEvaluator(detector, drive, scenarios, MODES, seed=0, history=1)(1)
    for (name, mode), detections in result.detections.items():
        earlier, failing = (apply(name, labelled).frame for labelled in drive)
        replay(detector, [earlier], options(mode))
        assert same(detections, detector.detect(failing, options(mode)).detections), (name, mode)
        replay(detector, [])
        assert not same(detections, detector.detect(failing, options(mode)).detections), (name, mode)
