# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Acceptance targets of a detector with AQR, and the model card's report on them.

The full evaluation takes hours, so the figures are read from the tables in docs/model_card.md;
`test_shipped_weights` checks the weights themselves on a few scenes.
"""

import re

import pytest
from helpers.places import ROOT

from aqr_perception.evaluation.scenarios import SCENARIOS

CARD = (ROOT / "docs" / "model_card.md").read_text()

CLEAN_MEAN_AP = CLEAN_NDS = 0.60
SHARE_OF_CLEAN_NDS = {
    "LiDAR gone": 0.65,
    "all cameras gone": 0.90,
    "4 beams": 0.86,
    "LiDAR field of view +-60 degrees": 0.79,
    "half the objects without points": 0.95,
    "half of each image occluded": 0.95,
}
"""Least share of clean NDS by scenario, following MoME's shares (arXiv:2503.19776) on nuScenes."""
AQR_GAIN = 0.02
"""Least NDS that AQR adds, averaged over the failure scenarios."""
BROKEN_RATIO = 0.5
"""Greatest weight of a broken sensor, relative to its weight when intact."""

CLEAN_MEAN_AP_ROW, CLEAN_NDS_ROW, GAIN_ROW = "clean mAP", "clean NDS", "mean NDS gain by AQR"
BROKEN_ROWS = (
    "weight of a black camera",
    "weight of a dirty camera",
    "weight of a frozen camera",
    "weight of a misaligned camera",
    "weight of a LiDAR shifted by 2 m",
)
MISSED = {
    CLEAN_MEAN_AP_ROW,
    CLEAN_NDS_ROW,
    "LiDAR gone",
    "4 beams",
    "LiDAR field of view +-60 degrees",
    "half the objects without points",
    GAIN_ROW,
    *BROKEN_ROWS[2:4],
}
"""Targets that the shipped weights miss; the model card explains why. Better weights must shrink this set."""


def table_rows(first_cell: str, columns: int) -> list[list[str]]:
    """Return the cells of the rows of the first table whose header has this first cell and number of columns."""
    lines = CARD.splitlines()
    tables = [
        index
        for index, line in enumerate(lines)
        if line.startswith(f"| {first_cell} |") and line.count("|") == columns + 1
    ]
    assert tables, f"docs/model_card.md has no table of {columns} columns whose header starts with {first_cell!r}"
    rows = []
    for line in lines[tables[0] + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def first_number(cell: str) -> float:
    match = re.search(r"\d+(\.\d+)?", cell)
    assert match, cell
    return float(match[0]) / (100 if "%" in cell else 1)


@pytest.fixture(scope="module")
def scores() -> dict[str, dict[str, float]]:
    """Scores of the shipped weights by scenario, from the card's robustness table."""
    names = ("mAP off", "NDS off", "share off", "mAP on", "NDS on", "share on", "LiDAR", "cameras")
    return {
        name: {column: first_number(cell) for column, cell in zip(names, cells, strict=True)}
        for name, *cells in table_rows("scenario", 9)
    }


@pytest.fixture(scope="module")
def reported() -> dict[str, list[str]]:
    """Required value, measured value and verdict by target, from the card's table of targets."""
    return {name: cells for name, *cells in table_rows("target", 4)}


def test_the_card_has_every_scenario_and_target(
    scores: dict[str, dict[str, float]], reported: dict[str, list[str]]
) -> None:
    assert set(scores) == set(SCENARIOS) and set(SCENARIOS) > set(SHARE_OF_CLEAN_NDS)
    assert set(reported) == {CLEAN_MEAN_AP_ROW, CLEAN_NDS_ROW, *SHARE_OF_CLEAN_NDS, GAIN_ROW, *BROKEN_ROWS}


def test_the_measured_scores_meet_every_target_but_the_known_misses(
    scores: dict[str, dict[str, float]], reported: dict[str, list[str]]
) -> None:
    failures = [row for name, row in scores.items() if name != "clean"]
    gain = sum(row["NDS on"] - row["NDS off"] for row in failures) / len(failures)
    met = {
        CLEAN_MEAN_AP_ROW: scores["clean"]["mAP on"] >= CLEAN_MEAN_AP,
        CLEAN_NDS_ROW: scores["clean"]["NDS on"] >= CLEAN_NDS,
        GAIN_ROW: gain >= AQR_GAIN,
        **{name: first_number(reported[name][1]) <= BROKEN_RATIO for name in BROKEN_ROWS},
        **{name: scores[name]["share on"] >= share for name, share in SHARE_OF_CLEAN_NDS.items()},
    }
    assert {name for name, passed in met.items() if not passed} == MISSED


def test_the_card_reports_each_target_as_it_was_measured(
    scores: dict[str, dict[str, float]], reported: dict[str, list[str]]
) -> None:
    assert {name for name, (_, _, verdict) in reported.items() if verdict == "missed"} == MISSED
    required = {name: first_number(cells[0]) for name, cells in reported.items()}
    assert required == {
        CLEAN_MEAN_AP_ROW: CLEAN_MEAN_AP,
        **SHARE_OF_CLEAN_NDS,
        CLEAN_NDS_ROW: CLEAN_NDS,
        GAIN_ROW: AQR_GAIN,
        **dict.fromkeys(BROKEN_ROWS, BROKEN_RATIO),
    }
    assert first_number(reported[CLEAN_MEAN_AP_ROW][1]) == scores["clean"]["mAP on"]
    assert first_number(reported[CLEAN_NDS_ROW][1]) == scores["clean"]["NDS on"]
    for name in SHARE_OF_CLEAN_NDS:
        assert first_number(reported[name][1]) == scores[name]["share on"], name
