# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Robustness table as text, Markdown, JSON and a plot."""

import dataclasses
import json
from pathlib import Path

import cv2
import pytest
from matplotlib.figure import Figure

from aqr_perception.evaluation import report
from aqr_perception.evaluation.broken_weights import WeightChange
from aqr_perception.evaluation.metrics import DetectionScores
from aqr_perception.evaluation.robustness import RobustnessRow, RobustnessTable
from aqr_perception.options import AqrMode

SCORES = {("clean", "off"): 0.5, ("clean", "auto"): 0.52, ("LiDAR gone", "off"): 0.2, ("LiDAR gone", "auto"): 0.39}


def _row(scenario: str, mode: AqrMode, nds: float) -> RobustnessRow:
    distances = {0.5: 0.1, 1.0: 0.2, 2.0: 0.3, 4.0: 0.4}
    scores = DetectionScores(
        nds - 0.05, nds, {"ATE": 0.4, "ASE": 0.2}, {"car": distances}, {"car": {"ATE": 0.4}}, ("car",), 7, 31
    )
    return RobustnessRow(scenario, mode, scores, nds / SCORES["clean", mode], 0.8, 0.3)


@pytest.fixture
def table() -> RobustnessTable:
    rows = tuple(_row(scenario, mode, nds) for (scenario, mode), nds in SCORES.items())  # type: ignore[arg-type]
    return RobustnessTable("aqr_tiny", 7, 0, rows, {"black camera": WeightChange(900, 0.6, 0.15, 0.8, 0.6)})


def test_text_shows_aqr_off_and_on_side_by_side(table: RobustnessTable) -> None:
    lines = report.text(table).splitlines()
    header, clean, gone = lines[2], lines[4], lines[5]
    assert header.split()[:7] == ["scenario", "mAP", "off", "NDS", "off", "share", "off"]
    assert clean.split() == ["clean", "0.450", "0.500", "100.0%", "0.470", "0.520", "100.0%", "0.80", "0.30"]
    assert gone.split() == ["LiDAR", "gone", "0.150", "0.200", "40.0%", "0.340", "0.390", "75.0%", "0.80", "0.30"]
    assert len({len(line) for line in lines[1:7]}) == 1


def test_notes_have_the_figures_without_a_column(table: RobustnessTable) -> None:
    text = report.text(table)
    assert "0.200 with AQR off, 0.390 with AQR on" in text
    assert "ATE 0.400 m, ASE 0.200" in text and "car 0.250" in text
    assert "Classes absent from the truth, excluded from all means: truck" in text
    assert "900 queries" in text and "0.150 (ratio 0.25)" in text and "(ratio 0.75)" in text


def test_notes_name_the_devkits_rules_and_the_classes_without_truth(table: RobustnessTable) -> None:
    rows = tuple(
        dataclasses.replace(
            row, scores=dataclasses.replace(row.scores, rules="devkit", classes=("car", "bus"), absent=("bus",))
        )
        for row in table.rows
    )
    text = report.text(dataclasses.replace(table, rows=rows))
    assert "31 objects of 1 classes" in text and "as nuscenes-devkit's DetectionEval" in text
    assert "with AP 0 and errors 1 in all means: bus" in text and "DetectionEval" not in report.text(table)


def signed_table(table: RobustnessTable, lidar: float, camera: float) -> RobustnessTable:
    rows = tuple(dataclasses.replace(row, lidar_weight=lidar, camera_weight=camera) for row in table.rows)
    return dataclasses.replace(
        table, rows=rows, broken={"black camera": WeightChange(900, 0.31, -0.12, 0.0, -0.6, signed=True)}
    )


def test_signed_weights_of_a_black_camera_are_compared_by_their_difference(
    table: RobustnessTable, tmp_path: Path
) -> None:
    signed = signed_table(table, -0.25, 0.4)
    text = report.text(signed)
    assert "from +0.310 to -0.120 (difference -0.430)" in text and "from +0.000 to -0.600 (difference -0.600)" in text
    assert "ratio" not in text and "-0.25" in text
    read = json.loads(report.write(signed, tmp_path)[0].read_text())["blackout"]
    assert read["signed"] is True and read["difference"] == pytest.approx(-0.43) and "ratio" not in read


def test_a_black_camera_whose_weight_was_zero_is_reported_without_a_ratio(table: RobustnessTable) -> None:
    text = report.text(dataclasses.replace(table, broken={"black camera": WeightChange(9, 0.0, 0.1, 0.5, 0.5)}))
    assert "from 0.000 to 0.100 (difference +0.100)" in text and "(ratio 1.00)" in text


@pytest.mark.parametrize(("lidar", "camera"), [(-0.9, 0.4), (0.3, -1.0), (-1.0, -1.0), (0.8, 0.3)])
def test_the_plot_of_weights_contains_every_bar(table: RobustnessTable, lidar: float, camera: float) -> None:
    axes = Figure().subplots()
    report._plot_weights(axes, signed_table(table, lidar, camera))
    low, high = axes.get_xlim()
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
    assert len(bars) == 4 and all(low < min(bar) - 0.1 or min(bar) == 0 for bar in bars)
    assert all(max(bar) < high - 0.1 for bar in bars)
    assert (low, high) == ((0, 1.15) if min(lidar, camera) >= 0 else (-high, high))


def test_broken_sensors_are_judged_by_half_of_their_weight(table: RobustnessTable) -> None:
    changes = {
        "shifted LiDAR": WeightChange(50, 0.8, 0.4, 0.8, 0.4),
        "misaligned camera": WeightChange(50, 0.8, 0.41, 0.9, 0.8),
    }
    text = report.text(dataclasses.replace(table, broken=changes))
    assert (
        "Shifted LiDAR: its mean weight for the 50 queries in its view changes from 0.800 to 0.400 (ratio 0.50)" in text
    )
    assert "(ratio 0.50). Passed: at most 50% is wanted" in text
    assert "Misaligned camera" in text and "(ratio 0.89). Missed: at most 50% is wanted" in text


def test_markdown_has_all_columns_for_every_scenario(table: RobustnessTable) -> None:
    rows = [line for line in report.markdown(table).splitlines() if line.startswith("|")]
    assert len(rows) == 4 and {row.count("|") for row in rows} == {10}
    assert rows[3].startswith("| LiDAR gone | 0.150 | 0.200 | 40.0% |")


def test_files_contain_the_figures_and_a_plot(table: RobustnessTable, tmp_path: Path) -> None:
    figures, page, picture = report.write(table, tmp_path / "new" / "folder")
    read = json.loads(figures.read_text())
    assert [row["scores"]["nds"] for row in read["rows"]] == list(SCORES.values())
    assert read["blackout"]["ratio"] == pytest.approx(0.25) and read["blackout"]["black"] == 0.15
    assert read["broken"]["black camera"]["passed"] is True
    assert read["mean_failure_nds"] == {"off": 0.2, "auto": 0.39}
    assert page.read_text() == report.markdown(table)
    image = cv2.imread(str(picture))
    assert image is not None and image.shape[1] > 1000 and image.std() > 10


def test_a_table_without_failures_or_router_can_be_reported(table: RobustnessTable, tmp_path: Path) -> None:
    alone = RobustnessTable("cmt", 7, 0, table.rows[:1])
    text = report.text(alone)
    assert "failures" not in text and "black" not in text and "mAP off" in text and "mAP on" not in text
    assert json.loads(report.write(alone, tmp_path)[0].read_text())["blackout"] is None
