# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Measurement of the headroom on a small detector: same frames, nothing broken, what is refused."""

import copy
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from helpers.small_fusion import SMALL, write_preset
from helpers.spread_router import spread_router

from aqr_perception.detector import Detector
from aqr_perception.evaluation.headroom.frame_headroom import HeadroomEvaluator
from aqr_perception.evaluation.headroom.known_failures import FAILURES
from aqr_perception.evaluation.headroom.measurement import measure
from aqr_perception.evaluation.headroom.shared_base import SharedBases
from aqr_perception.evaluation.metrics import EvaluationError
from aqr_perception.evaluation.robustness import run
from aqr_perception.frame import Detections, LabelledFrame
from aqr_perception.options import AqrOptions, DetectionOptions

NAMES = ("clean", "one camera gone", "all cameras black", "LiDAR shifted by 2 m")
CHOSEN = {name: FAILURES[name] for name in NAMES}


def boxes_of(detections: Detections) -> tuple[np.ndarray, np.ndarray]:
    return detections.boxes, detections.scores


def test_the_oracle_takes_out_whole_sensors_and_nothing_of_intact_ones(routed: Detector, small: LabelledFrame) -> None:
    found = HeadroomEvaluator(routed, [small], CHOSEN, ("auto",), 0)(0)
    assert found.truth is small.truth and found.has_lidar
    off = DetectionOptions(score_threshold=0.0, aqr=AqrOptions.of_model("off"), attention=True)
    for name in ("clean", "one camera gone"):
        result = found.failures[name]
        assert result.taken_out is None and result.removed == 0 and not len(result.weights)
        assert result.attention_off.broken == 0 and result.attention_off.scores > 0
    clean = routed.detect(small.frame, off).detections
    assert all(map(np.array_equal, boxes_of(found.failures["clean"].left_in), boxes_of(clean)))
    without = {
        "all cameras black": dataclasses.replace(small.frame, cameras=()),
        "LiDAR shifted by 2 m": dataclasses.replace(small.frame, points=None),
    }
    for name, frame in without.items():
        taken_out = found.failures[name].taken_out
        assert taken_out is not None and 0 < found.failures[name].removed < 1
        for one, other in zip(boxes_of(taken_out), boxes_of(routed.detect(frame, off).detections), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
        assert len(found.failures[name].weights), "queries that compare the broken sensor's weight"
        assert found.failures[name].attention_off.broken > 0
    assert found.failures["all cameras black"].reliability.cameras.total > 0


def test_left_in_and_aqr_are_those_of_the_robustness_table(routed: Detector, small: LabelledFrame) -> None:
    names = ("clean", "one camera gone")
    chosen = {name: FAILURES[name] for name in names}
    table = measure(routed, [small], chosen, ("off", "auto"), progress=False)
    robustness = run(routed, [small], chosen, ("off", "auto"), progress=False)
    assert table.modes == ("auto",) and table.auto_mode == "both" and table.objects == 6
    for row in table.rows:
        assert row.left_in.nds == pytest.approx(robustness.row(row.failure, "off").scores.nds, abs=1e-6)
        assert row.by_mode["auto"].nds == pytest.approx(robustness.row(row.failure, "auto").scores.nds, abs=1e-6)
        assert row.headroom == 0 and row.weights is None
    assert table.reliability is not None and table.reliability.lidar.total > 0


def test_variants_on_one_detector_share_what_does_not_depend_on_the_router(
    routed: Detector, small: LabelledFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {name: FAILURES[name] for name in ("clean", "all cameras black")}
    other = spread_router(copy.deepcopy(routed), 0.4)
    alone = [measure(detector, [small], chosen, ("auto",), progress=False).as_dict() for detector in (routed, other)]
    bases, decoded = SharedBases(), []
    detect = HeadroomEvaluator._detect
    monkeypatch.setattr(HeadroomEvaluator, "_detect", lambda *call: decoded.append(call[-1]) or detect(*call))
    shared = []
    for detector in (routed, other):
        shared.append(measure(detector, [small], chosen, ("auto",), progress=False, bases=bases).as_dict())
    assert shared == alone
    assert alone[0] != alone[1]
    assert decoded.count("off") == 3, "clean and black left in, black taken out, once"
    with torch.no_grad():
        next(value for name, value in other.model.named_parameters() if name.startswith("pts_bbox_head")).add_(0.1)
    assert bases.of(routed) is not None
    assert bases.of(other) is None


def test_what_cannot_be_measured_is_refused_by_name(routed: Detector, small: LabelledFrame) -> None:
    with pytest.raises(EvaluationError, match="no frames"):
        measure(routed, [], CHOSEN)
    with pytest.raises(EvaluationError, match="no failures"):
        measure(routed, [small], {})
    with pytest.raises(EvaluationError, match=r"found 1\.5 as the largest health"):
        measure(routed, [small], CHOSEN, threshold=1.5)
    with pytest.raises(EvaluationError, match="workers is 0"):
        measure(routed, [small], CHOSEN, workers=0)
    with pytest.raises(ValueError, match="gate"):
        measure(routed, [small], CHOSEN, ("gate",))
    other = cast(Detector, SimpleNamespace(model=SimpleNamespace(removes_tokens=False), preset_name="petr_tiny"))
    with pytest.raises(EvaluationError, match=r"petr_tiny: found a model whose tokens cannot .* needed CMT or AQR-CMT"):
        measure(other, [small], CHOSEN)


def test_an_untrained_gate_wins_and_loses_nothing(small: LabelledFrame, tmp_path: Path) -> None:
    torch.manual_seed(0)
    preset = write_preset(tmp_path, {**SMALL, "aqr": {"mode": "gate", "bev_window": 5, "image_window": 5}})
    detector = Detector(preset, "random", device="cpu", precision="fp32")
    table = measure(detector, [small], {name: FAILURES[name] for name in NAMES[1:3]}, progress=False)
    assert table.auto_mode == "gate"
    for row in table.rows:
        assert row.won("auto") == pytest.approx(0, abs=1e-6)
    black = table.rows[1].weights
    assert black is not None and black.ratio == pytest.approx(1) and black.passed is False
