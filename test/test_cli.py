# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command line: help, results, and errors in one line."""

import json
import sys
from pathlib import Path

import pytest
import torch

from aqr_perception.cli import main
from aqr_perception.models import build_model, load_checkpoint, preset_names


@pytest.mark.parametrize(
    "command",
    [[], ["presets"], ["benchmark"], ["benchmark", "frame"], ["benchmark", "attention"], ["benchmark", "node"],
     ["convert"], ["convert", "checkpoint"], ["simulate"], ["simulate", "bag"], ["simulate", "picture"],
     ["simulate", "frames"], ["train"], ["evaluate"], ["inspect"], ["inspect", "checkpoint"]],
)  # fmt: skip
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0 and "usage" in capsys.readouterr().out


def test_presets_are_listed_with_their_descriptions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in preset_names()) and "nuScenes" in printed


@pytest.mark.slow
def test_the_frame_benchmark_measures_every_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "frame.json"
    assert main(["benchmark", "frame", "--repeats", "2", "--device", "cpu", "--json", str(figures)]) == 0
    measured = json.loads(figures.read_text())
    stages = {stage["stage"]: stage["median_ms"] for stage in measured["stages"]}
    assert list(stages) == ["preprocess", "image", "points", "decoder", "postprocess", "total"]
    assert 0 < sum(stages.values()) - stages["total"] <= stages["total"] * 1.5
    assert measured["peak_memory_mib"] > 0 and "decoder" in capsys.readouterr().out


@pytest.mark.slow
def test_the_attention_benchmark_compares_with_the_dense_bias(tmp_path: Path) -> None:
    figures = tmp_path / "attention.json"
    sizes = ["--queries", "20", "--bev", "8", "8", "--views", "2", "--image", "4", "5", "--heads", "2"]
    options = ["--repeats", "1", "--device", "cpu", "--json", str(figures)]
    assert main(["benchmark", "attention", *sizes, *options]) == 0
    rows = {row["variant"]: row for row in json.loads(figures.read_text())}
    assert set(rows) == {"plain", "bias", "mass", "bias and mass", "dense bias"}
    assert rows["plain"]["time_ratio"] == 1.0


@pytest.mark.slow
def test_a_checkpoint_survives_conversion(tmp_path: Path) -> None:
    model = build_model("aqr_tiny")
    torch.save({"state_dict": model.state_dict()}, tmp_path / "ours.pth")
    target = tmp_path / "ours.safetensors"
    assert main(["convert", "checkpoint", "aqr_tiny", str(tmp_path / "ours.pth"), str(target)]) == 0
    other = build_model("aqr_tiny")
    load_checkpoint(other, target)
    assert other.router_trained
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["benchmark", "frame", "--model", "cmt_huge"], "aqr_tiny"),
        (["convert", "checkpoint", "aqr_tiny", "/nowhere.pth", "x.safetensors"], "/nowhere.pth"),
    ],
)
def test_a_mistake_gives_one_line_and_status_one(
    command: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 1
    assert named in capsys.readouterr().err


@pytest.mark.slow
def test_a_simulated_drive_becomes_a_bag_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag, picture = tmp_path / "drive.mcap", tmp_path / "frame.png"
    size = ["--size", "96", "32"]
    assert main(["simulate", "bag", str(bag), "--seconds", "0.2", *size]) == 0 and bag.is_file()
    assert main(["simulate", "picture", str(picture), *size]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(bag) in capsys.readouterr().out


@pytest.mark.slow
def test_a_short_training_and_its_evaluation_go_from_data_to_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, run, figures = tmp_path / "cache", tmp_path / "run", tmp_path / "figures.json"
    data = ["--data-root", str(cache), "--device", "cpu"]
    training = ["train", "--frames", "2", "--batch-size", "1", "--workers", "0", "--output", str(run), *data]
    assert main([*training, "--steps", "1"]) == 0
    assert main([*training, "--steps", "1"]) == 1 and "--resume" in capsys.readouterr().err
    weights = str(run / "final.safetensors")
    evaluation = ["evaluate", "--checkpoint", weights, "--frames", "1", "--scenarios", "LiDAR gone", *data]
    assert main([*evaluation, "--output", str(tmp_path / "out"), "--json", str(figures)]) == 0
    rows = json.loads(figures.read_text())["rows"]
    assert {(row["scenario"], row["mode"]) for row in rows} == {
        (scenario, mode) for scenario in ("clean", "LiDAR gone") for mode in ("off", "auto")
    }
    assert (tmp_path / "out" / "robustness.png").is_file()


def test_missing_data_and_unknown_scenarios_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", "nuscenes", "--steps", "1"]) == 1
    assert "--data-root" in capsys.readouterr().err
    assert main(["evaluate", "--scenarios", "flood"]) == 1
    assert "'flood'" in capsys.readouterr().err


def test_a_missing_library_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "embreex.rtcore_scene", None)
    for name in [name for name in sys.modules if name.startswith("aqr_perception.simulator")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["simulate", "picture", str(tmp_path / "frame.png")]) == 1
    assert "needs embreex" in capsys.readouterr().err
