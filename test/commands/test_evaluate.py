"""Command ``aqr_perception evaluate`` on nuScenes tables."""

import json
from pathlib import Path

import pytest
import yaml
from helpers.nuscenes_tables import VERSION, write_drive
from helpers.small_fusion import SMALL

from aqr_perception.cli import main
from aqr_perception.evaluation.scenarios import SCENARIOS


@pytest.mark.slow
def test_nuscenes_tables_give_a_row_off_and_on_for_every_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, preset, figures = tmp_path / "nuscenes", tmp_path / "small.yaml", tmp_path / "figures.json"
    root.mkdir()
    write_drive(root)
    preset.write_text(yaml.safe_dump({**SMALL, "aqr": {"mode": "bias"}}))
    data = ["--data", "nuscenes", "--data-root", str(root), "--data-version", VERSION, "--frames", "2"]
    command = ["evaluate", "--model", str(preset), "--checkpoint", "random", "--aqr", "off", "auto", *data]
    assert main([*command, "--device", "cpu", "--output", str(tmp_path), "--json", str(figures)]) == 0
    table = json.loads(figures.read_text())
    assert [(row["scenario"], row["mode"]) for row in table["rows"]] == [
        (scenario, mode) for scenario in SCENARIOS for mode in ("off", "auto")
    ]
    assert table["auto_mode"] == "bias"
    printed = capsys.readouterr().out
    assert "AQR on: mode bias, as in preset small" in printed and all(scenario in printed for scenario in SCENARIOS)
