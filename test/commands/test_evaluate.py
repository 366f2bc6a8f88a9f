# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command ``aqr_perception evaluate`` on nuScenes tables."""

import json
from pathlib import Path
from typing import Literal

import pytest
from helpers.nuscenes_tables import SCENE, SPLIT, VERSION, write_drive
from helpers.small_fusion import SMALL, small_aqr_cmt, write_preset
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.constants import ATTRIBUTE_NAMES
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.nuscenes import NuScenes

from aqr_perception.cli import main
from aqr_perception.evaluation.nuscenes_results import FILE_NAME
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


def evaluated(tmp_path: Path, root: Path, version: str, *options: str) -> Path:
    """Evaluate a small model with random weights and return the folder of the results."""
    preset = write_preset(tmp_path, SMALL)
    data = ["--data", "nuscenes", "--data-root", str(root), "--data-version", version]
    command = ["evaluate", "--model", preset, "--checkpoint", "random", "--device", "cpu", *data, *options]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    return tmp_path / "out"


@pytest.mark.slow
def test_the_result_file_of_nuscenes_gives_the_devkit_the_same_figures(tmp_path: Path) -> None:
    root = tmp_path / "nuscenes"
    root.mkdir()
    write_drive(root)
    output = evaluated(tmp_path, root, VERSION, "--scenarios", "clean", "--split", SCENE)
    (row,) = (row for row in json.loads((output / "robustness.json").read_text())["rows"] if row["mode"] == "auto")
    config, tables = config_factory("detection_cvpr_2019"), NuScenes(VERSION, str(root), verbose=False)
    devkit = DetectionEval(tables, config, str(output / FILE_NAME), SPLIT, str(tmp_path / "devkit"), verbose=False)
    scores = devkit.evaluate()[0]
    assert devkit.meta["use_camera"] and devkit.meta["use_lidar"] and not devkit.meta["use_radar"]
    assert len(devkit.pred_boxes.all) > 100
    assert row["scores"]["rules"] == "devkit" and row["scores"]["nds"] == pytest.approx(scores.nd_score)
    assert row["scores"]["mean_ap"] == pytest.approx(scores.mean_ap)


@pytest.mark.slow
def test_the_test_split_without_truth_gives_the_result_file_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "nuscenes"
    root.mkdir()
    write_drive(root, {}, "v1.0-test", ("scene-0077", "scene-0061"))
    output = evaluated(tmp_path, root, "v1.0-test")
    assert [path.name for path in output.iterdir()] == [FILE_NAME]
    results = json.loads((output / FILE_NAME).read_text())["results"]
    assert list(results) == ["sample-0", "sample-1", "sample-2"] and all(results.values())
    box = results["sample-1"][0]
    assert box["sample_token"] == "sample-1" and box["attribute_name"] in (*ATTRIBUTE_NAMES, "")
    assert "3 samples without annotations: detected, not scored" in capsys.readouterr().out


def test_a_split_of_other_data_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--model", "aqr_tiny", "--device", "cpu", "--split", "val"]) != 0
    assert "data 'synthetic' has no splits to choose from: leave --split out" in capsys.readouterr().err


def test_drives_of_nuscenes_are_tracked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("motmetrics", reason="needs the extra `tracking`")
    root = tmp_path / "nuscenes"
    root.mkdir()
    write_drive(root)
    output = evaluated(tmp_path, root, VERSION, "--tracking")
    printed = capsys.readouterr().out
    assert "| clean | kalman |" in printed and "1 drives, 3 frames; all end before the first failure" in printed
    tracks = json.loads((output / "tracks_nusc.json").read_text())
    assert sorted(tracks["results"]) == ["sample-0", "sample-1", "sample-2"]
    assert [path.name for path in (output / "tracking").iterdir()] == ["scene.pt"]


@pytest.mark.parametrize("options", [["--tracking", "-1"], ["--tracking", "2", "--data", "keyframes"]])
def test_drives_that_cannot_be_tracked_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *options]) == 1
    assert f"--tracking {options[1]}" in capsys.readouterr().err


@pytest.mark.slow
def test_headroom_of_nuscenes_tables_for_a_model_and_for_variants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "nuscenes"
    root.mkdir()
    write_drive(root)
    options = ["--benchmark", "headroom", "--scenarios", "one camera black", "--frames", "1"]
    output = evaluated(tmp_path, root, VERSION, *options)
    printed = capsys.readouterr().out
    assert "one camera black" in printed and "NDS taken out" in printed and str(output / "reliability.png") in printed
    rows = json.loads((output / "headroom.json").read_text())["rows"]
    assert [row["failure"] for row in rows] == ["clean", "one camera black"] and rows[1]["removed"] > 0
    data = ["--data", "nuscenes", "--data-root", str(root), "--data-version", VERSION, "--device", "cpu"]
    named = ["--variants", f"old={output}/headroom.json", f"off={output}/headroom.json:off", "--cost", "old=12"]
    assert main(["evaluate", *options, *data, *named, "--output", str(tmp_path / "ablation")]) == 0
    printed = capsys.readouterr().out
    assert "oracle on old" in printed and "12.0" in printed
    assert {path.name for path in (tmp_path / "ablation").iterdir()} == {"ablation.json", "ablation.md", "ablation.png"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--variants", "a=random"], "found --variants with --benchmark robustness"),
        (["--benchmark", "headroom", "--tracking"], "found --tracking with --benchmark headroom"),
        (["--benchmark", "headroom", "--cost", "a=3"], "found --cost without --variants"),
        (["--benchmark", "headroom", "--scenarios", "dust"], "scenarios 'dust' do not exist"),
        (["--benchmark", "headroom", "--variants", "a=b", "--checkpoint", "c"], "which name their own checkpoints"),
    ],
)
def test_headroom_refuses_what_does_not_go_together(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *options]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_multicorrupt_of_nuscenes_tables_gives_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "nuscenes"
    root.mkdir()
    write_drive(root)
    benchmark = ("--benchmark", "multicorrupt", "--scenarios", "temporalmisalignment", "--split", SCENE, "--aqr", "off")
    figures = evaluated(tmp_path, root, VERSION, *benchmark) / "multicorrupt.json"
    result = json.loads(figures.read_text())
    assert result["corruptions"] == ["temporalmisalignment"] and result["data"]["split"] == [SCENE]
    # The drive's first keyframe has none before it.
    assert result["first_frames"] == 1 and "1 of" in capsys.readouterr().out
    assert [row["scenario"] for row in result["rows"]] == ["clean", *(f"temporalmisalignment {n}" for n in (1, 2, 3))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--baseline", "b.json"), "needed only with --benchmark multicorrupt"),
        (("--benchmark", "multicorrupt", "--tracking"), "needed one of them"),
        (("--benchmark", "multicorrupt", "--data", "keyframes"), "needed one of them"),
        (("--benchmark", "multicorrupt", "--scenarios", "sleet"), "'sleet' do not exist in multicorrupt"),
        (("--benchmark", "multicorrupt", "--baseline", "nothing.json"), "nothing.json: found no such file"),
        (("--scenarios", "hail"), "'hail' do not exist"),
        (("--thresholds", "0.3"), "found --thresholds with --data synthetic, needed --data keyframes"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_the_model_is_read(
    options: tuple[str, ...], message: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *options]) != 0
    assert message in caplog.text + capsys.readouterr().err


def test_multicorrupt_refuses_a_mode_in_which_the_router_cannot_act(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset(tmp_path, SMALL)
    options = ["--benchmark", "multicorrupt", "--scenarios", "dark", "--frames", "1", "--data-root", str(tmp_path)]
    command = ["evaluate", "--model", preset, "--checkpoint", "random", "--device", "cpu", "--aqr", "gate", *options]
    assert main([*command, "--output", str(tmp_path / "out")]) == 1
    assert "aqr.mode is 'gate'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
