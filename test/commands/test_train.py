# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command ``aqr_perception train``: from its options to the call of the training loop."""

import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from helpers.nuscenes_tables import SCENE, VERSION, write_drive
from helpers.small_fusion import SMALL, small_aqr_cmt, write_preset
from safetensors.torch import load_file, save_file

from aqr_perception.cli import main
from aqr_perception.models import build_model
from aqr_perception.training.loop import Outcome


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that runs the command without training, and returns the loop's arguments."""
    recorded: list[tuple[Any, ...]] = []

    def record(*arguments: Any, **_: Any) -> Outcome:
        recorded.append(arguments)
        return Outcome(1, True, None, "trained")

    def run(*options: str) -> SimpleNamespace:
        monkeypatch.setattr("aqr_perception.training.loop.train", record)
        command = ["train", "--data-root", str(tmp_path), "--frames", "2", "--steps", "1", "--output", str(tmp_path)]
        assert main([*command, *options]) == 0
        model, _, _, loss, train_options, _ = recorded[-1]
        return SimpleNamespace(model=model, loss=loss, options=train_options)

    return run


def test_learning_rate_factors_reach_the_training(asked: Any) -> None:
    factors = ("--learning-rate-factor", "img_backbone=0", "--learning-rate-factor", "pts_bbox_head.transformer=0.5")
    assert asked(*factors).options.learning_rate_factors == {"img_backbone": 0.0, "pts_bbox_head.transformer": 0.5}
    assert asked().options.learning_rate_factors == {}


@pytest.mark.parametrize("factor", ["img_backbone", "=0.5", "img_backbone=", "img_backbone=slow"])
def test_a_factor_that_cannot_be_read_is_refused(factor: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--learning-rate-factor", factor])
    assert f"found '{factor}', needed PART=F" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("factors", "named"),
    [
        (("img_neck=0.5", "img_neck=0.1"), "gives img_neck the factors 0.5 and 0.1"),
        (("img_neck=-1",), "'img_neck' is -1.0"),
        (("img_nek=0.5",), "has the part 'img_nek'.*did you mean 'img_neck'"),
    ],
)
def test_a_wrong_factor_is_named(
    factors: tuple[str, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [word for factor in factors for word in ("--learning-rate-factor", factor)]
    assert main(["train", "--data-root", str(tmp_path), "--output", str(tmp_path), "--steps", "1", *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert re.search(named, line)


@pytest.mark.slow
def test_training_our_router_uses_the_weights_in_both_ways_with_its_own_loss(asked: Any) -> None:
    call = asked("--preset", "cmt_vit_small", "--train", "aqr")
    assert call.model.aqr_options.mode == "both" and call.model.router_trained
    assert call.loss.router_weight == 1.0
    assert asked("--router-weight", "0.3").loss.router_weight == 0.3


@pytest.mark.parametrize("mode", ["bias", "modulation"])
def test_the_research_codes_router_keeps_its_presets_mode_and_has_no_loss(
    asked: Any, mode: Literal["bias", "modulation"], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    preset = write_preset(tmp_path, small_aqr_cmt(mode))
    command = ("--preset", preset, "--train", "aqr")
    with caplog.at_level(logging.WARNING):
        call = asked(*command)
        assert call.model.aqr_options.mode == mode and call.model.router_trained
        assert call.loss.router_weight == 0.0
        assert asked(*command, "--router-weight", "0").loss.router_weight == 0.0
        assert "--router-weight" not in caplog.text
        assert asked(*command, "--router-weight", "2").loss.router_weight == 0.0
    assert caplog.text.count("--router-weight 2 has no effect: the query weights of small") == 1
    other = asked(*command, "--aqr", "both").model
    assert other.aqr_options.mode == "both" and other.router_trained
    assert not asked("--preset", preset, "--train", "head", "--aqr", "off").model.router_trained


@pytest.mark.slow
def test_the_research_codes_training_starts_from_a_plain_cmt(asked: Any, tmp_path: Path) -> None:
    entries = small_aqr_cmt()
    plain = {name: entries[name] for name in entries.keys() - {"aqr", "aqr_cmt", "architecture"}}
    cmt = build_model(write_preset(tmp_path, {**plain, "learning_rate_factors": {}, "aqr": {"mode": "off"}}, "cmt"))
    published = {name: tensor + 1 for name, tensor in cmt.state_dict().items() if not name.startswith("aqr.")}
    torch.save({"state_dict": published}, tmp_path / "cmt.pth")
    model = asked("--preset", write_preset(tmp_path, entries), "--checkpoint", str(tmp_path / "cmt.pth")).model
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in published.items())
    assert {name.split(".")[1] for name in loaded.keys() - published.keys()} == {
        "aqr_weight_generator",
        "attention_bias_generator",
        "weight_renderer",
    }
    assert model.router_trained, "the router begins with random weights and is trained"


def test_a_checkpoint_without_a_router_is_said_to_start_a_new_one(
    asked: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = build_model("aqr_tiny")
    torch.save(model.state_dict(), tmp_path / "with.pth")
    torch.save({k: v for k, v in model.state_dict().items() if not k.startswith("aqr.")}, tmp_path / "without.pth")
    with caplog.at_level(logging.INFO):
        asked("--checkpoint", str(tmp_path / "with.pth"))
        asked("--checkpoint", str(tmp_path / "without.pth"), "--aqr", "off")
        assert "untrained query router" not in caplog.text
        asked("--checkpoint", str(tmp_path / "without.pth"))
    assert f"the training starts with an untrained query router and AQR mode {model.preset.aqr.mode}" in caplog.text


def test_the_router_learns_from_what_is_asked(asked: Any) -> None:
    assert asked().loss.router_gradient == "both"
    assert asked("--router-gradient", "health").loss.router_gradient == "health"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--router-gradient", "health", "--router-weight", "0"), "--router-weight is 0"),
        (("--model", "aqr_tiny_sparse", "--aqr", "gate"), "set the mode in a copy of the preset"),
    ],
)
def test_a_router_that_cannot_learn_as_asked_is_refused_by_name(
    options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--data-root", str(tmp_path), "--frames", "2", "--steps", "1", "--output", str(tmp_path)]
    assert main([*command, *options]) != 0
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--vary-points", "--no-augmentation"), "--vary-points has no effect in a training without augmentation"),
        (("--vary-points", "--train", "camera-branch"), "--vary-points has no effect in a training without points"),
        (("--donors", "2"), "--donors pastes objects into point clouds, but this training also has pictures"),
        (("--remove-broken", "1.5"), "--remove-broken is 1.5, but must be 0 to 1"),
        (("--remove-broken", "nan"), "--remove-broken is nan, but must be 0 to 1"),
        (("--remove-broken", "0.5", "--no-corruption"), "--remove-broken has no effect in a training without failures"),
        (("--remove-broken", "0.5", "--train", "aqr"), "--remove-broken takes away the broken sensors"),
    ],
)
def test_changes_of_the_data_without_effect_or_sense_are_refused(
    options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--data-root", str(tmp_path), "--frames", "2", "--steps", "1", "--output", str(tmp_path)]
    assert main([*command, *options]) == 1
    assert said in capsys.readouterr().err


def exchange_splits(root: Path) -> None:
    """Move the tables' drive from the validation split to the training split, or back."""
    tables = root / VERSION / "scene.json"
    scenes = json.loads(tables.read_text())
    for scene in scenes:
        scene["name"] = {SCENE: "scene-0061", "scene-0061": SCENE}[scene["name"]]
    tables.write_text(json.dumps(scenes))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("mode", ["bias", "modulation"])
def test_the_router_is_trained_on_nuscenes_tables_and_its_weights_evaluated(
    tmp_path: Path, mode: Literal["bias", "modulation"], precision: str
) -> None:
    root, run = tmp_path / "nuscenes", tmp_path / "run"
    root.mkdir()
    write_drive(root)
    exchange_splits(root)
    preset = write_preset(tmp_path, small_aqr_cmt(mode))
    data = ["--data", "nuscenes", "--data-root", str(root), "--data-version", VERSION]
    data += ["--device", "cpu", "--precision", precision]
    evaluation = ["evaluate", "--model", preset, "--checkpoint", str(run / "final.safetensors"), *data]
    training = ["train", "--preset", preset, "--train", "aqr", "--steps", "2", "--workers", "0", "--output", str(run)]
    assert main([*training, "--ema-decay", "0", *data]) == 0
    exchange_splits(root)
    options = ["--scenarios", "LiDAR gone", "--frames", "1", "--output", str(tmp_path)]
    assert main([*evaluation, *options]) == 0
    table = json.loads((tmp_path / "robustness.json").read_text())
    assert {row["mode"] for row in table["rows"]} == {"off", "auto"} and table["auto_mode"] == mode
    before, after = build_model(preset).state_dict(), load_file(run / "final.safetensors")
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"aqr_weight_generator"} | ({"attention_bias_generator"} if mode == "bias" else set())


@pytest.mark.slow
def test_a_gate_is_trained_for_frozen_weights_and_measured_against_them_on_nuscenes_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe of docs/aqr.md."""
    root, run = tmp_path / "nuscenes", tmp_path / "run"
    root.mkdir()
    write_drive(root)
    published = write_preset(tmp_path, {**SMALL, "aqr": {"mode": "off"}}, "published")
    gated = write_preset(tmp_path, {**SMALL, "aqr": {"mode": "gate"}}, "gated")
    base = build_model(published)
    weights = {key: tensor for key, tensor in base.state_dict().items() if not key.startswith("aqr.")}
    save_file(weights, tmp_path / "published.safetensors")
    data = ["--data", "nuscenes", "--data-root", str(root), "--data-version", VERSION, "--device", "cpu"]
    exchange_splits(root)
    start = ["--model", gated, "--checkpoint", str(tmp_path / "published.safetensors"), "--train", "aqr"]
    length = ["--steps", "2", "--workers", "0", "--ema-decay", "0", "--output", str(run)]
    assert main(["train", *start, *length, *data]) == 0
    trained = load_file(run / "final.safetensors")
    assert all(torch.equal(trained[key], tensor) for key, tensor in weights.items())
    assert any(key.startswith("aqr.") for key in trained)

    exchange_splits(root)
    variants = [f"off={published}@{tmp_path}/published.safetensors:off", f"gate={gated}@{run}/final.safetensors:gate"]
    options = ["--scenarios", "one camera black", "--frames", "1", "--output", str(tmp_path / "ablation")]
    assert main(["evaluate", "--benchmark", "headroom", "--variants", *variants, *data, *options]) == 0
    table = json.loads((tmp_path / "ablation" / "ablation.json").read_text())
    assert "gate" in json.dumps(table) and "gate" in capsys.readouterr().out
