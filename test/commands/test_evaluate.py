"""Command ``aqr_perception evaluate`` on nuScenes tables."""

import json
from pathlib import Path
from typing import Literal

import pytest
from helpers.nuscenes_tables import VERSION, write_drive
from helpers.small_fusion import small_aqr_cmt, write_preset

from aqr_perception.cli import main
from aqr_perception.evaluation.scenarios import SCENARIOS


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["bias", "modulation"])
def test_nuscenes_tables_give_a_row_off_and_on_for_every_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: Literal["bias", "modulation"]
) -> None:
    root, figures = tmp_path / "nuscenes", tmp_path / "figures.json"
    root.mkdir()
    write_drive(root)
    preset = write_preset(tmp_path, small_aqr_cmt(mode))
    data = ["--data", "nuscenes", "--data-root", str(root), "--data-version", VERSION, "--frames", "2"]
    command = ["evaluate", "--model", preset, "--checkpoint", "random", "--aqr", "off", "auto", *data]
    assert main([*command, "--device", "cpu", "--output", str(tmp_path), "--json", str(figures)]) == 0
    table = json.loads(figures.read_text())
    assert [(row["scenario"], row["mode"]) for row in table["rows"]] == [
        (scenario, mode) for scenario in SCENARIOS for mode in ("off", "auto")
    ]
    assert table["auto_mode"] == mode
    printed = capsys.readouterr().out
    assert f"AQR on: mode {mode}, as in preset small" in printed and all(scenario in printed for scenario in SCENARIOS)
