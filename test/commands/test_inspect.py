# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command ``inspect checkpoint``: what it says of files."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.preset_weights import (
    BIAS,
    GENERATOR,
    MODULATION,
    PLAIN,
    bias_constants,
    intermediate,
    published,
    weights_of,
)

from aqr_perception.cli import main
from aqr_perception.models import build_model
from aqr_perception.models.weights.checkpoint import save_checkpoint
from aqr_perception.models.weights.shipped import weights_directory

CONFIG = "plugin = True\nmodel = dict(pts_bbox_head=dict(enable_aqr=True, window_sizes=[8, 5], activation='tanh'))\n"
META = {"epoch": 20, "iter": 80080, "mmdet_version": "2.28.2", "config": CONFIG, "CLASSES": ("car", "truck")}

Report = Callable[..., tuple[str, dict[str, Any]]]


@pytest.fixture
def report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Report:
    """Inspect a file or content; return what is printed, and the JSON."""

    def inspect(content: object) -> tuple[str, dict[str, Any]]:
        path, figures = content if isinstance(content, Path) else tmp_path / "epoch_20.pth", tmp_path / "report.json"
        if not isinstance(content, Path):
            torch.save(content, path)
        assert main(["inspect", "checkpoint", str(path), "--json", str(figures)]) == 0
        return capsys.readouterr().out, json.loads(figures.read_text())

    return inspect


def line(printed: str, label: str) -> str:
    """Return the text after a label."""
    return next(text[14:] for text in printed.splitlines() if text.startswith(f"{label:<14}"))


@pytest.mark.slow
def test_a_research_checkpoint_is_described_whole(report: Report) -> None:
    weights = weights_of(BIAS)
    content = {
        "meta": META | {"hook_msgs": {"best": np.float64(0.6)}},
        "state_dict": {f"module.{key}": value for key, value in weights.items()},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(1000)}}, "param_groups": []},
        "args": argparse.Namespace(lr=1),
    }
    printed, found = report(content)
    assert line(printed, "fits") == BIAS and line(printed, "architecture") == "aqr_cmt"
    assert line(printed, "weights").startswith(f"{len(weights):,} tensors, ")
    assert line(printed, "weights").endswith("entry 'state_dict', prefix 'module.' of all keys")
    assert line(printed, "classes") == "2: car, truck; the weights have 10"
    assert line(printed, "AQR") == "research code, attention bias"
    assert "windows of 8 x 8 cells (even, off centre: -3 to +4 cells)" in printed
    assert "bias_scale 3.7, limited to 0.5..5.0: used as it is; the bias is limited to -5..5" in printed
    assert f"the preset says it: config/models/{BIAS}.yaml" in printed
    assert line(printed, "also inside") == "optimizer: optimiser state, 1 tensors, 4.0 kB"
    assert line(printed, "training") == "meta.epoch 20, meta.iter 80080, mmdet_version 2.28.2"
    assert line(printed, "config") == "plugin = True" and line(printed, "config on AQR") == "enable_aqr=True"
    assert "window_sizes=[8, 5]" in printed and "activation='tanh'" in printed
    assert found["not_loaded"] == ["argparse.Namespace", "numpy._core.multiarray.scalar", "numpy.dtype"]
    assert found["weights"]["presets"] == [BIAS] and found["weights"]["router"]["bias_scale"] == pytest.approx(3.7)
    assert all(len(text) < 160 for text in printed.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "fits", "router"),
    [
        (lambda: published(PLAIN), PLAIN, "no query router"),
        (lambda: weights_of(MODULATION), MODULATION, "research code, modulation of features by rendered maps"),
        (lambda: intermediate(weights_of(BIAS)), BIAS, "research code, attention bias, intermediate version"),
        (lambda: {**weights_of(BIAS), **bias_constants(9)}, BIAS, "research code, attention bias"),
        (lambda: weights_of("petr_vov_800x320"), "petr_vov_1600x640", "no query router"),
    ],
)
def test_variants_are_told_apart(
    report: Report, weights: Callable[[], dict[str, torch.Tensor]], fits: str, router: str
) -> None:
    printed, found = report({"state_dict": weights()})
    assert line(printed, "fits").split(",")[0] == fits and line(printed, "AQR").split(":")[0] == router
    assert fits in found["weights"]["presets"] and found["weights"]["nearest"] is None


def test_published_weights_are_said_to_have_no_router(report: Report) -> None:
    printed, _ = report(published(PLAIN))
    assert printed.count("without its query router (AQR off)") == 3


def test_weights_near_a_preset_are_described_with_what_is_missing(report: Report) -> None:
    weights = {key: value for key, value in published(PLAIN).items() if not key.startswith("pts_neck.")}
    printed, found = report({"state_dict": weights})
    assert line(printed, "fits") == f"no shipped preset; the nearest is {PLAIN}:"
    assert "missing: 12 keys under pts_neck.deblocks.* (" in printed and found["weights"]["nearest"] == PLAIN


def test_unknown_weights_and_files_without_weights_are_described(report: Report) -> None:
    printed, found = report({"encoder.weight": torch.ones(2, 2)})
    assert line(printed, "fits") == "no shipped preset, not even half of its keys"
    assert found["weights"]["architecture"] is None and line(printed, "odd values").startswith("constant: 1 tensors")
    printed, found = report({"epoch": 3, "optimizer": {"state": {0: torch.ones(5)}}})
    assert line(printed, "weights").startswith("none: holds entries that are not named tensors: 'epoch' (int)")
    assert found["weights"] is None and "optimizer: optimiser state, 1 tensors, 20 bytes" in printed


def test_odd_values_are_reported_by_key_and_not_refused(report: Report) -> None:
    weights = {key: torch.randn(3, 3) for key in ("a", "b", "c")}
    weights["a"][0, 0], weights["b"][1, 1] = float("nan"), float("inf")
    weights |= {"d": torch.zeros(3), "norm.running_var": torch.zeros(3), "half": torch.randn(3).half()}
    printed, found = report(weights)
    assert found["weights"]["odd_values"] == {
        "NaN": ["a"], "infinite": ["b"], "all zero": ["d"], "running_var 0 or less": ["norm.running_var"],
    }  # fmt: skip
    assert "NaN: 1 tensors, the first is a" in printed
    assert line(printed, "precision") == "float32 5, float16 1 (mixed)"


def test_averages_are_reported_with_the_set_that_is_loaded(report: Report) -> None:
    weights = {"a.weight": torch.randn(3), "a.bias": torch.randn(3)}
    state = {
        "format": 1,
        "step": 5,
        "options": {"train": "all"},
        "model": weights,
        "ema": {"average": weights, "updates": 5},
    }
    printed, found = report(state)
    assert found["weights"]["entry"] == "ema.average" and "the average is taken" in line(printed, "note")
    assert line(printed, "training") == "step 5" and line(printed, "config") == "train = 'all'"
    assert "model: weights, 2 tensors, 24 bytes" in printed


def test_files_of_this_project_are_described_with_their_classes(report: Report, tmp_path: Path) -> None:
    printed, found = report(weights_directory() / "aqr_tiny.safetensors")
    assert found["format"] == "safetensors" and line(printed, "fits") == "aqr_tiny"
    assert line(printed, "AQR").startswith("query router of this project")
    save_checkpoint(build_model("petr_tiny"), tmp_path / "own.safetensors")
    assert "car" in line(report(tmp_path / "own.safetensors")[0], "classes")


def test_files_of_early_pytorch_are_described(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"state_dict": published("petr_tiny")}, path, _use_new_zipfile_serialization=False)
    printed, _ = report(path)
    assert line(printed, "fits") == "petr_tiny" and "before PyTorch 1.6" in line(printed, "format")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"<html></html>", "is a web page"),
        (b"version https://git-lfs.github.com/", "lfs pull"),
    ],
)
def test_unreadable_files_give_one_line_and_status_one(
    tmp_path: Path, content: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    for path in (tmp_path / "a.pth", tmp_path, tmp_path / "absent.pth"):
        assert main(["inspect", "checkpoint", str(path)]) == 1
        printed = capsys.readouterr()
        assert printed.err.count("\n") == 1 and str(path) in printed.err and not printed.out
        assert said in printed.err or path.name != "a.pth"


def test_code_in_a_file_does_not_run(tmp_path: Path, report: Report) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return eval, (f"open({str(tmp_path / 'executed')!r}, 'w')",)

    printed, _ = report({"state_dict": published("petr_tiny"), "meta": Payload()})
    assert "builtins.eval" in line(printed, "not loaded") and not (tmp_path / "executed").exists()


def test_the_help_names_what_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "checkpoint", "--help"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0 and all(word in printed for word in ("preset", "bias_scale", "never run", "--json"))


def test_constants_that_contradict_the_model_are_explained(report: Report) -> None:
    printed, found = report({**weights_of(BIAS), f"{GENERATOR}gaussian_weights": torch.rand(64)})
    assert found["weights"]["nearest"] == BIAS and "Gaussian windows are not supported" in printed
