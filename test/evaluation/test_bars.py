"""The bars: which figures of a table they judge, and how."""

import pytest

from aqr_perception.evaluation.bars import SHARES_OF_CLEAN, Bar, bars
from aqr_perception.evaluation.blackout import BlackoutWeights
from aqr_perception.evaluation.metrics import DetectionScores
from aqr_perception.evaluation.robustness import RobustnessRow, RobustnessTable
from aqr_perception.evaluation.scenarios import SCENARIOS
from aqr_perception.options import AqrMode


def _table(nds: dict[str, tuple[float, float]], blackout: BlackoutWeights | None = None) -> RobustnessTable:
    modes: tuple[AqrMode, AqrMode] = ("off", "auto")
    rows = []
    for scenario, scores in nds.items():
        for mode, value, clean in zip(modes, scores, nds["clean"], strict=True):
            figures = DetectionScores(value, value, {}, {}, {}, ("car",), 1, 1)
            rows.append(RobustnessRow(scenario, mode, figures, value / clean, 1.0, 1.0))
    return RobustnessTable("aqr_tiny", 1, 0, tuple(rows), blackout)


def test_every_bar_is_about_a_scenario_that_exists() -> None:
    assert set(SHARES_OF_CLEAN) <= set(SCENARIOS)


def test_figures_with_aqr_are_judged_and_its_gain_over_the_failures_alone() -> None:
    table = _table(
        {"clean": (0.9, 0.5), "4 beams": (0.4, 0.43), "LiDAR gone": (0.3, 0.32)}, BlackoutWeights(9, 0.8, 0.6, 0.8, 0.7)
    )
    judged = {bar.name: bar for bar in bars(table)}
    assert {name: bar.met for name, bar in judged.items()} == {
        "clean mAP": True,
        "share of clean NDS, LiDAR gone": False,
        "share of clean NDS, 4 beams": True,
        "NDS that AQR adds in the mean over the failures": True,
        "weight of a black camera by its weight intact": False,
    }
    assert judged["NDS that AQR adds in the mean over the failures"].measured == pytest.approx(0.025)
    assert judged["share of clean NDS, 4 beams"].measured == pytest.approx(0.86)


def test_what_a_table_lacks_is_not_judged() -> None:
    assert [bar.name for bar in bars(_table({"clean": (0.4, 0.6)}))] == ["clean mAP"]


def test_a_bar_says_what_was_wanted_and_whether_it_was_met() -> None:
    assert str(Bar("clean mAP", 0.4567, 0.5)) == "clean mAP: 0.457, at least 0.500 wanted, missed"
    assert str(Bar("ratio", 0.5, 0.5, at_most=True)) == "ratio: 0.500, at most 0.500 wanted, met"
