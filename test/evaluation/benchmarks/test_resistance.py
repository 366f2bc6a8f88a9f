# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Resistance ability of a model, alone and against a baseline; its table, files and errors."""

import dataclasses
import json
from pathlib import Path

import cv2
import pytest

from aqr_perception.evaluation.benchmarks import resistance_report
from aqr_perception.evaluation.benchmarks.benchmark_run import _passes, chosen_corruptions
from aqr_perception.evaluation.benchmarks.multicorrupt import CORRUPTIONS, SEVERITIES, scenario_name
from aqr_perception.evaluation.benchmarks.resistance import (
    Resistance,
    ResistanceTable,
    check_baseline,
    read_baseline,
    with_baseline,
)
from aqr_perception.evaluation.metrics import DetectionScores, EvaluationError
from aqr_perception.evaluation.robustness import RobustnessRow, RobustnessTable
from aqr_perception.options import AqrMode

CMT = {
    "temporalmisalignment": (0.6572, 0.568, 0.4988),
    "beamsreducing": (0.6826, 0.5873, 0.4497),
    "fog": (0.6974, 0.6527, 0.4134),
}
"""Published NDS of CMT, whose clean NDS is 0.729, at the three severities."""
SPARSEFUSION_FOG = (0.6762, 0.6261, 0.3811)


def table(clean: float, nds: dict[str, tuple[float, ...]], modes: tuple[AqrMode, ...] = ("off",)) -> ResistanceTable:
    def row(scenario: str, mode: AqrMode, value: float) -> RobustnessRow:
        scores = DetectionScores(
            value, value, {"ATE": 0.4}, {"car": {2.0: value}}, {"car": {"ATE": 0.4}}, ("car",), 7, 31
        )
        return RobustnessRow(scenario, mode, scores, 0.0, 0.5, 0.5)

    rows = [row("clean", mode, clean) for mode in modes]
    rows += [
        row(scenario_name(name, severity), mode, value)
        for name, values in nds.items()
        for severity, value in zip(SEVERITIES, values, strict=True)
        for mode in modes
    ]
    return ResistanceTable(RobustnessTable("some_model", 7, 0, tuple(rows)), {"source": "synthetic", "world": 1})


def test_resistance_ability_equals_the_published_figures() -> None:
    one = table(0.729, CMT).modes["off"]
    assert one.ra("fog") == pytest.approx((0.95665, 0.89534, 0.56708), abs=1e-5)
    assert one.mean_ra("beamsreducing") == pytest.approx(0.786, abs=5e-4)
    assert one.mean_ra("temporalmisalignment") == pytest.approx(0.788, abs=5e-4)
    assert one.mra == pytest.approx((0.786 + 0.788 + 0.806) / 3, abs=1e-3)


def test_relative_resistance_equals_the_published_figures() -> None:
    bevfusion = Resistance(0.7144, {"fog": tuple(0.7144 * ra for ra in (0.917553, 0.837206, 0.501680))})
    assert Resistance(0.729, {"fog": CMT["fog"]}).rra("fog", bevfusion) == pytest.approx(0.09398, abs=1e-4)
    assert Resistance(0.7315, {"fog": SPARSEFUSION_FOG}).mrra(bevfusion) == pytest.approx(0.04429, abs=1e-4)


def test_without_a_clean_score_there_is_no_ratio(tmp_path: Path) -> None:
    nothing = table(0.0, {"fog": (0.0, 0.0, 0.0)})
    assert nothing.modes["off"].mra is None and nothing.modes["off"].rra("fog", nothing.modes["off"]) is None
    assert "mRA AQR off: -" in resistance_report.text(nothing)
    assert json.loads(resistance_report.write(nothing, tmp_path)[0].read_text())["modes"]["off"]["mra"] is None


def test_files_have_figures_and_a_picture_and_serve_as_baseline(tmp_path: Path) -> None:
    own, other = table(0.6, CMT, ("off", "auto")), table(0.5, {name: (0.4, 0.4, 0.4) for name in CMT})
    figures, page, picture = resistance_report.write(other, tmp_path / "other")
    compared = with_baseline(own, figures, read_baseline(figures))
    shown = resistance_report.text(compared)
    rows = {line.split()[0]: line.split() for line in shown.splitlines()}
    expected = sum(CMT["fog"]) / 1.2 - 1
    assert f"{expected:+.2%}" in rows["fog"] and rows["fog"].count(f"{expected:+.2%}") == 2
    assert "mRRA AQR on" in shown and "Means over 3 of ten corruptions" in shown
    read = json.loads(resistance_report.write(compared, tmp_path / "own")[0].read_text())
    assert (
        read["modes"]["auto"]["rra"]["fog"] == pytest.approx(expected)
        and read["modes"]["auto"]["baseline_mode"] == "off"
    )
    assert page.read_text() == resistance_report.markdown(other)
    image = cv2.imread(str(picture))
    assert image is not None and image.shape[1] > 1000 and image.std() > 10


@pytest.mark.parametrize(
    ("change", "message"),
    [({"frames": 8}, "found frames 8, needed 7"), ({"seed": 1}, "found seed 1"), ({"data": {}}, "found data")],
)
def test_a_baseline_of_other_data_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    result = table(0.6, CMT)
    content = {**result.as_dict(), **change}
    with pytest.raises(EvaluationError, match=message):
        with_baseline(result, tmp_path / "b.json", content)
    with pytest.raises(EvaluationError, match="found no snow"):
        check_baseline(tmp_path / "b.json", result.as_dict(), {}, ["snow"])


@pytest.mark.parametrize(
    "content", [None, "no JSON", "[]", '{"rows": []}', '{"benchmark": "multicorrupt", "modes": {}}']
)
def test_another_file_is_no_baseline(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "robustness.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(EvaluationError, match=r"robustness.json.*needed multicorrupt\.json"):
        read_baseline(path)


def test_corruptions_left_out_are_named_with_the_reason() -> None:
    result = dataclasses.replace(table(0.6, {"fog": CMT["fog"]}), left_out={"temporalmisalignment": "needs drives"})
    assert "Left out: temporal misalignment: needs drives" in resistance_report.text(result)


def test_corruptions_are_chosen_by_name_and_run_in_passes_that_fit_in_memory() -> None:
    assert chosen_corruptions(None) == tuple(CORRUPTIONS)
    assert chosen_corruptions(["snow", "clean", "dark"]) == ("dark", "snow")
    with pytest.raises(ValueError, match="'sleet' do not exist in multicorrupt"):
        chosen_corruptions(["sleet"])
    names = list(CORRUPTIONS)
    assert _passes(names, 200, 2) == [names]
    passes = _passes(names, 6019, 2)
    assert len(passes) > 1 and [name for part in passes for name in part] == names
