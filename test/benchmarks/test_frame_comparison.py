# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Comparison of settings of one frame: parsing, agreement of boxes, noise, limits, plots."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_fusion import SMALL, write_preset

from aqr_perception.benchmarks import inputs, machine_load
from aqr_perception.benchmarks.frame_comparison import Comparison, Variant, agreeing_boxes, stage_amounts
from aqr_perception.benchmarks.frame_settings import FrameSettings, SettingError, parse
from aqr_perception.benchmarks.inputs import made_up_frame
from aqr_perception.benchmarks.machine_limits import Amount, MachineLimits, amount
from aqr_perception.benchmarks.machine_load import MachineLoad
from aqr_perception.cli import main
from aqr_perception.devices import NumberFormats
from aqr_perception.frame import Detections
from aqr_perception.models.aqr import native_windows
from aqr_perception.models.ops.convolution import convolve
from aqr_perception.models.points import native_sparse
from aqr_perception.models.transformer import native_correction

LIMITS = MachineLimits({"float32": 100.0}, 10.0, 1)


def detections(*rows: tuple[float, float, int]) -> Detections:
    """Return boxes at x metres with a score and a label."""
    boxes = np.zeros((len(rows), 9), np.float32)
    boxes[:, 0] = [row[0] for row in rows]
    weight = np.zeros(len(rows), np.float32)
    scores, labels = (np.array([row[index] for row in rows]) for index in (1, 2))
    return Detections(boxes, scores.astype(np.float32), labels, weight, weight, np.zeros((len(rows), 0), np.float32))


def variant(name: str, totals: list[float]) -> Variant:
    """Return a variant with times of a decoder of 1 GFLOP."""
    seconds = {"decoder": totals, "total": totals}
    return Variant(name, NumberFormats(torch.float32, torch.float32), LIMITS, {"decoder": Amount(1e9, 1e8)}, seconds)


@pytest.mark.parametrize(
    ("text", "field", "values"),
    [
        ("precision=fp32,bf16", "precision", ["fp32", "bf16"]),
        ("image_backend=torch,openvino", "image_backend", ["torch", "openvino"]),
        ("model=aqr_tiny,petr_tiny", "model", ["aqr_tiny", "petr_tiny"]),
        ("threads=1,2", "threads", [1, 2]),
        ("cameras=0,6", "cameras", [0, 6]),
        ("aqr=on,off", "aqr", ["on", "off"]),
    ],
)
def test_variants_are_named_after_their_values(text: str, field: str, values: list[object]) -> None:
    variants = parse(text, FrameSettings("aqr_tiny"))
    assert list(variants) == [str(value) for value in values]
    assert [getattr(setting, field) for setting in variants.values()] == values


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("speed=1,2", "'speed'"),
        ("precision=fp32", "at least 2"),
        ("precision=fp32,fp32", "different"),
        ("precision=fp32,int8", "'int8'"),
        ("threads=0,1", "'0'"),
        ("points=-1,5", "'-1'"),
        ("", "''"),
    ],
)
def test_wrong_settings_are_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(SettingError, match=named):
        parse(text, FrameSettings("aqr_tiny"))


def test_a_frame_gets_as_many_cameras_and_points_as_asked() -> None:
    whole = made_up_frame()
    assert whole.points is not None
    for count in (10, len(whole.points) + 10):
        frame = FrameSettings("aqr_tiny", cameras=2, points=count).frame(whole)
        assert frame.points is not None and len(frame.points) == count and len(frame.cameras) == 2
    with pytest.raises(SettingError, match="cameras is 7"):
        FrameSettings("aqr_tiny", cameras=7).frame(whole)


def test_boxes_agree_by_class_place_and_score_once_each() -> None:
    reference = detections((0, 0.5, 1), (5, 0.5, 1), (9, 0.5, 2), (20, 0.29, 1))
    assert agreeing_boxes([reference], [reference]) == (3, 3)
    moved = detections((0.19, 0.515, 1), (5, 0.53, 1), (9, 0.5, 1))
    assert agreeing_boxes([reference], [moved]) == (1, 3)
    assert agreeing_boxes([detections((0, 0.5, 1), (0.1, 0.5, 1))], [detections((0.05, 0.5, 1))]) == (1, 2)
    assert agreeing_boxes([reference], [detections()]) == (0, 3)
    # A box of another frame is another box.
    assert agreeing_boxes([reference, reference], [moved, reference]) == (4, 6)
    assert agreeing_boxes([reference, detections()], [detections(), reference]) == (0, 3)


def test_a_noisy_machine_is_called_noisy() -> None:
    steady = variant("a", [0.1, 0.101, 0.099, 0.1, 0.1])
    noisy = variant("b", [0.1, 0.3, 0.09, 0.2, 0.4])
    assert "TOO NOISY" in Comparison((steady, noisy), 1.5).table()
    quiet = Comparison((steady, variant("b", [0.2] * 5)), 0.0).table()
    assert "NOISY" not in quiet and "busy: trust" not in quiet
    assert "busy: trust the ratios" in Comparison((steady, steady), 0.7).table()


def test_columns_of_presets_are_named_after_their_files_unless_two_have_one_name() -> None:
    header = Comparison((variant("some/long/path/gate.yaml", [0.1]), variant("off.yaml", [0.1])), None).table()
    assert "gate ms" in header.splitlines()[0] and "some/long" not in header.splitlines()[0]
    header = Comparison((variant("a/gate.yaml", [0.1]), variant("b/gate.yaml", [0.1])), None).table()
    assert "a/gate.yaml ms" in header and "b/gate.yaml ms" in header


def test_the_distance_to_the_machines_limit_is_time_over_operations_at_its_rate() -> None:
    measured = variant("a", [0.1] * 5)  # 1 GFLOP at 100 GFLOP/s take 10 ms
    assert measured.distance_to_limit("decoder") == pytest.approx(10)
    assert measured.distance_to_limit("total") is None
    stage = measured.as_dict()["stages"]["decoder"]  # type: ignore[index]
    assert stage["ratio_to_copies"] == pytest.approx(10)  # 0.1 GB at 10 GB/s


def test_fused_convolutions_count_like_plain_ones() -> None:
    images, convolution = torch.zeros(1, 8, 10, 10), torch.nn.Conv2d(8, 16, 3, padding=1)
    norm = torch.nn.BatchNorm2d(16).eval()
    expected = 2 * 16 * 8 * 9 * 100
    assert amount(lambda: convolution(images)).flops == expected
    assert amount(lambda: convolve(images, convolution, norm, relu=True)).flops == expected
    residual = torch.zeros(1, 16, 10, 10)
    assert amount(lambda: convolve(images, convolution, norm, residual=residual)).flops == expected


def test_views_move_no_bytes_and_copies_twice_their_size() -> None:
    values = torch.zeros(100)
    assert amount(lambda: values.view(10, 10)).bytes == 0
    assert amount(lambda: values.clone()).bytes == 800


def test_fused_attention_counts_both_products() -> None:
    query, key = torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 5, 8)
    found = amount(lambda: torch.nn.functional.scaled_dot_product_attention(query, key, key)).flops
    assert found == 2 * 2 * 3 * 5 * (8 + 8)


def test_the_load_of_others_leaves_out_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat, clock, own = tmp_path / "stat", iter([0.0, 10.0]), iter([5.0, 11.0])
    monkeypatch.setattr(machine_load, "_STAT", stat)
    monkeypatch.setattr(machine_load.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(machine_load, "_own_seconds", lambda: next(own))
    monkeypatch.setattr(machine_load.os, "sysconf", lambda _: 100)
    stat.write_text("cpu 1000 0 0 5000 0 0 0 0 0 0\n")
    load = MachineLoad()
    stat.write_text("cpu 2100 0 0 5900 100 0 0 0 0 0\n")  # 11 s busy, of which 6 s are this process's
    assert load.others() == pytest.approx(0.5)


def test_without_proc_the_load_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_load, "_STAT", tmp_path / "missing")
    assert MachineLoad().others() is None
    assert "an unknown number of CPUs" in Comparison((variant("a", [0.1] * 5),), None).table()


@pytest.mark.slow
def test_a_comparison_prints_and_writes_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inputs, "simulated_frames", lambda: (made_up_frame(), made_up_frame(1)))
    file, preset = tmp_path / "figures.json", write_preset(tmp_path, SMALL)
    options = ["--model", preset, "--precision", "fp32", "--seconds", "0", "--json", str(file)]
    assert main(["benchmark", "--compare", "aqr=on,off", *options]) == 0
    printed = capsys.readouterr().out
    figures = json.loads(file.read_text())["aqr=on,off"]
    on, off = figures["variants"]
    assert on["stages"]["decoder"]["gflop"] > off["stages"]["decoder"]["gflop"] > 0
    assert on["stages"]["image"]["gflop"] == off["stages"]["image"]["gflop"] > 0
    assert on["frames"] == off["frames"] == 5 and "boxes above 0.3 agree with on" in printed
    assert "GFLOP/s" in printed and "CPUs busy" in printed


@pytest.mark.slow
def test_operations_in_mixed_precision_are_those_in_fp32(tmp_path: Path) -> None:
    setting, frame = FrameSettings(write_preset(tmp_path, SMALL), precision="bf16"), made_up_frame()
    reduced = stage_amounts(setting.detector(), frame, setting)
    setting = dataclasses.replace(setting, precision="fp32")
    exact = stage_amounts(setting.detector(), frame, setting)
    for stage, work in exact.items():
        assert reduced[stage].flops == pytest.approx(work.flops, rel=0.02) and work.flops > 0


def test_operations_do_not_depend_on_compiled_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting, frame = FrameSettings(write_preset(tmp_path, SMALL), precision="fp32"), made_up_frame()
    found = stage_amounts(setting.detector(), frame, setting)
    for kernels in (native_sparse, native_correction, native_windows):
        monkeypatch.setattr(kernels, "is_usable", lambda *_: False)
    assert stage_amounts(setting.detector(), frame, setting) == found


@pytest.mark.slow
def test_sweeps_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    picture, preset = tmp_path / "costs.svg", write_preset(tmp_path, SMALL)
    sweeps = ["--sweep", "cameras=1,3", "--sweep", "queries=60,90"]
    options = ["--model", preset, "--precision", "fp32", "--seconds", "0", "--plot", str(picture)]
    assert main(["benchmark", "frame", *sweeps, *options]) == 0
    text = picture.read_text()
    assert text.startswith("<?xml") and text.count('id="axes_') == 2
    assert str(picture) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--plot", "costs.png"], "--sweep"),
        (["--compare", "aqr=on,off", "--plot", "costs.png"], "--sweep"),
        (["--sweep", "precision=fp32,bf16"], "--compare"),
        (["--compare", "colour=red,blue"], "'colour'"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "frame", *arguments]) == 1
    assert named in capsys.readouterr().err


def test_fewer_queries_than_proposals_are_refused(tmp_path: Path) -> None:
    settings = FrameSettings(write_preset(tmp_path, SMALL), "random", "cpu", "fp32", queries=40)
    with pytest.raises(SettingError, match=r"queries is 40, but small proposes 50"):
        settings.detector()
