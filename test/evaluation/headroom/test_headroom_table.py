# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Headroom, shares and verdicts of made-up figures, and their reports."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from aqr_perception.evaluation.broken_weights import WeightChange
from aqr_perception.evaluation.headroom import headroom_report
from aqr_perception.evaluation.headroom.attention_shares import AttentionShares, attention_shares
from aqr_perception.evaluation.headroom.headroom_table import HeadroomRow, HeadroomTable, Score
from aqr_perception.evaluation.headroom.oracle import Broken
from aqr_perception.evaluation.headroom.reliability import Reliability, WeightBins
from aqr_perception.frame import CameraView, DetectionQueries, Detections, Frame, Result, WeightMaps


def row(failure: str, left_in: float, taken_out: float, on: float, **changed: object) -> HeadroomRow:
    shares = AttentionShares(2.0, 1.0, {"front": 0.6, "back": 0.4}, 0.6)
    made = HeadroomRow(
        failure,
        Score(left_in, left_in - 0.05),
        Score(taken_out, taken_out - 0.05),
        {"auto": Score(on, on - 0.05)},
        0.0 if failure == "clean" else 0.2,
        shares,
        shares,
        None,
    )
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


@pytest.fixture
def table() -> HeadroomTable:
    bins = WeightBins.of(np.array([0.8] * 5 + [0.2]), np.array([1.0, 1, 1, 1, 0, 0.2]))
    rows = (
        row("clean", 0.6, 0.6, 0.599),
        row("fog", 0.4, 0.5, 0.46, weights=WeightChange(90, 0.8, 0.2, 0.9, 0.6)),
        row("ghost objects", 0.5, 0.509, 0.5, weights=WeightChange(90, 0.8, 0.6, 0.8, 0.6)),
        row("4 beams", 0.45, 0.3, 0.449),
        row("LiDAR shifted by 2 m", 0.2, 0.3, 0.25),
    )
    return HeadroomTable("made_up", "random", 5, 50, 0, 0.5, rows, Reliability(bins, bins), auto_mode="bias")


def test_headroom_and_shares(table: HeadroomTable) -> None:
    clean, fog, ghosts, beams, shifted = table.rows
    assert fog.headroom == pytest.approx(0.1) and fog.share_won("auto") == pytest.approx(0.6)
    assert not ghosts.has_headroom and ghosts.share_won("auto") is None, "below a point there is none"
    assert beams.headroom == 0 and beams.won("auto") == pytest.approx(-0.001)
    assert shifted.share_won("auto") == pytest.approx(0.5) and clean.headroom == 0
    assert row("x", 0.4, 0.41, 0.4).has_headroom, "exactly a point is one"


def test_summary_of_a_mode_and_of_aqr_off(table: HeadroomTable) -> None:
    on, off = table.summary("auto"), table.summary("off")
    assert on.clean == 0.599 and on.failures == pytest.approx((0.46 + 0.5 + 0.449 + 0.25) / 4)
    assert on.share_of_clean == pytest.approx(on.failures / 0.599) and on.clean_difference == pytest.approx(-0.001)
    assert on.share_won == pytest.approx(0.11 / 0.2) and on.least_share == pytest.approx(0.5)
    assert on.worst == pytest.approx(-0.001) and list(on.verdicts.values()) == [True] * 3
    assert off.failures == pytest.approx((0.4 + 0.5 + 0.45 + 0.2) / 4) and off.share_won == 0 and off.worst == 0
    assert table.mean_taken_out == pytest.approx((0.5 + 0.509 + 0.3 + 0.3) / 4)


def test_verdicts_name_what_is_missed(table: HeadroomTable) -> None:
    rows = (row("clean", 0.6, 0.6, 0.597), row("fog", 0.4, 0.5, 0.44))
    verdicts = dataclasses.replace(table, rows=rows).summary("auto").verdicts
    assert list(verdicts.values()) == [False] * 3
    without_clean = dataclasses.replace(table, rows=rows[1:]).summary("auto")
    assert without_clean.clean is None and without_clean.share_of_clean is None and len(without_clean.verdicts) == 2
    only_clean = dataclasses.replace(table, rows=rows[:1]).summary("auto")
    assert only_clean.failures is None and only_clean.share_won is None


def test_text_shows_failures_without_headroom_and_shares(table: HeadroomTable) -> None:
    text = headroom_report.text(table)
    lines = {line.split("  ")[0]: line for line in text.splitlines()[:10]}
    assert lines["fog"].split()[1:] == ["20%", "0.400", "0.500", "0.100", "0.460", "+0.060", "(60%)"]
    assert "none" in lines["ghost objects"] and "none" in lines["4 beams"]
    assert "Mean NDS over the failures: 0.388 left in, 0.402 taken out, 0.415 with AQR on" in text
    assert "AQR on wins 55% of the headroom" in text and "point or more: yes" in text and "mode bias" in text
    assert "0.30 -> 0.30" in text and "25% ok" in text and "75% HIGH" in text
    assert "expected calibration error 0.000, Brier score 0.133" in text


def test_signed_weights_have_differences_and_no_reliability(table: HeadroomTable) -> None:
    rows = (row("fog", 0.4, 0.5, 0.46, weights=WeightChange(90, 0.4, -0.2, 0.9, 0.6, signed=True)),)
    text = headroom_report.text(dataclasses.replace(table, rows=rows, reliability=None, signed=True))
    assert "-0.60" in text and "no probabilities" in text and "Reliability of" not in text


@pytest.mark.slow
def test_files_hold_tables_figures_and_pictures(table: HeadroomTable, tmp_path: Path) -> None:
    figures, page, picture, diagram = headroom_report.write(table, tmp_path / "new")
    read = json.loads(figures.read_text())
    assert [entry["failure"] for entry in read["rows"]] == [entry.failure for entry in table.rows]
    assert read["rows"][1]["share_won"]["auto"] == pytest.approx(0.6)
    assert read["rows"][1]["attention_off"] == {"lidar": 0.5, "cameras": {"front": 0.3, "back": 0.2}, "broken": 0.3}
    assert read["rows"][1]["weights"]["passed"] is True
    assert read["reliability"]["lidar"]["bins"][8]["count"] == 5
    rows = [line for line in page.read_text().splitlines() if line.startswith("| fog")]
    assert len(rows) == 2 and rows[0].startswith("| fog | 20% | 0.400 | 0.500 | 0.100 | 0.460 | +0.060 (60%) |")
    for path in (picture, diagram):
        image = cv2.imread(str(path))
        assert image is not None and image.shape[1] > 1000 and image.std() > 10


def test_a_table_without_a_router_can_be_reported(table: HeadroomTable, tmp_path: Path) -> None:
    rows = tuple(dataclasses.replace(entry, by_mode={}, weights=None) for entry in table.rows)
    alone = dataclasses.replace(table, rows=rows, reliability=None, auto_mode=None)
    assert len(headroom_report.write(alone, tmp_path)) == 3
    assert "AQR on" not in headroom_report.text(alone)


def test_attention_is_weighted_by_score_and_counts_broken_sensors() -> None:
    views = tuple(CameraView(name, np.zeros((2, 2, 3), np.uint8), np.eye(3), np.eye(4)) for name in ("front", "back"))
    scores = np.array([0.75, 0.25], np.float32)
    none = np.zeros((2, 0), np.float32)
    detections = Detections(np.zeros((2, 9), np.float32), scores, np.zeros(2, np.int64), scores, scores, none)
    attention = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], np.float32)
    queries = DetectionQueries(np.zeros((2, 3), np.float32), attention)
    result = Result(detections, WeightMaps(None, (-1, -1, 1, 1), {}, "router"), {}, queries)
    found = attention_shares(Frame(0, None, views), result, Broken(False, ("back",)))
    means = (found + AttentionShares()).means
    assert means is not None and means.lidar == pytest.approx(0.4) and means.broken == pytest.approx(0.35)
    assert means.cameras == pytest.approx({"front": 0.25, "back": 0.35})
    assert attention_shares(Frame(0, None, views), result, Broken(True, ("back",))).broken == pytest.approx(0.75)
    without = dataclasses.replace(result, queries=None)
    assert attention_shares(Frame(0, None, views), without, Broken()).means is None
