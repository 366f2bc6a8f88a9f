# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Exports of whole models: equality with ONNX Runtime and OpenVINO on a CPU, manifest, errors."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.exported_parts import use_exported_parts
from helpers.small_fusion import SMALL, write_preset

from aqr_perception.cli import main
from aqr_perception.detector import Detector
from aqr_perception.export import exporter
from aqr_perception.export.exporter import MANIFEST, TOLERANCE, difference, export
from aqr_perception.export.parts import ExportError
from aqr_perception.options import AqrOptions, DetectionOptions


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "openvino", "torch-export"])
def test_a_small_model_runs_in_another_runtime(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    for library in {"onnx": ("onnxscript", "onnxruntime"), "openvino": ("openvino", "onnxscript")}.get(form, ()):
        pytest.importorskip(library, reason=f"the format {form} needs {library}")
    decoder = {**SMALL["decoder"], "layers": 1}  # type: ignore[dict-item]
    preset = write_preset(tmp_path, {**SMALL, "decoder": decoder})
    rig = tmp_path / "rig.yaml"
    rig.write_text("cameras: [left, right]\n")
    out = tmp_path / "out"
    assert main(["export", preset, "--format", form, "--rig", str(rig), "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    manifest = json.loads((out / MANIFEST).read_text())
    assert [part["name"] for part in manifest["parts"]] == ["image", "bev", "decoder"] and manifest["cameras"] == 2
    for part in manifest["parts"]:
        assert (out / part["file"]).is_file() and part["file"] in printed
        assert max(part["difference_from_torch"].values()) <= TOLERANCE
    assert "stays in PyTorch: sparse encoder" in printed and "sparse encoder" in manifest["left_in_torch"]
    images = manifest["parts"][0]["inputs"][0]
    assert images == {"name": "images", "shape": [2, 3, 64, 160], "dtype": "float32"}
    assert len(manifest["preset_sha256"]) == 64 and manifest["classes"] and manifest["images"]["mean"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx"])  # the small model's parts run in the others, too
def test_exported_aqr_tiny_gives_the_detectors_boxes(form: str, tmp_path: Path, one_thread: None) -> None:
    for library in ("onnxscript", "onnxruntime" if form == "onnx" else "openvino"):
        pytest.importorskip(library, reason=f"the format {form} needs {library}")
    pytest.importorskip("embreex", reason="the simulator needs embreex")
    from aqr_perception.benchmarks.inputs import simulated_frames

    (frame,) = simulated_frames(1)
    detector, exported = (Detector("aqr_tiny", None, "cpu", "fp32") for _ in range(2))
    export(exported, form, tmp_path, len(frame.cameras), AqrOptions.of_model())  # type: ignore[arg-type]
    use_exported_parts(exported, tmp_path)
    options = DetectionOptions(score_threshold=0.2)
    expected, found = detector.detect(frame, options), exported.detect(frame, options)
    assert len(expected.detections.scores) > 10
    np.testing.assert_array_equal(found.detections.labels, expected.detections.labels)
    np.testing.assert_allclose(found.detections.scores, expected.detections.scores, atol=1e-3)
    np.testing.assert_allclose(found.detections.boxes, expected.detections.boxes, atol=1e-2)
    np.testing.assert_allclose(found.detections.lidar_weight, expected.detections.lidar_weight, atol=1e-3)


@pytest.mark.parametrize(
    ("form", "library", "extra"), [("onnx", "onnxscript", "export"), ("openvino", "openvino", "openvino")]
)
def test_a_missing_library_is_named_with_its_command(
    form: str,
    library: str,
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    assert main(["export", write_preset(tmp_path, SMALL), "--format", form, "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert library in error and "pip install" in error and extra in error
    assert not (tmp_path / "out").exists()


def test_a_rig_without_cameras_is_refused_for_a_model_with_cameras(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", write_preset(tmp_path, SMALL), "--format", "torch-export", "--cameras", "0"]) == 1
    assert "cameras is 0" in capsys.readouterr().err


@pytest.mark.slow
def test_a_part_that_differs_from_pytorch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Detector(write_preset(tmp_path, SMALL), "random", "cpu", "fp32")

    def noise(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [0.01 * next(iter(inputs.values()))[:1]]

    monkeypatch.setattr(exporter.formats, "write", lambda part, form, path: None)
    monkeypatch.setattr(exporter.formats, "load", lambda form, path: noise)
    with pytest.raises(ExportError, match=r"image.*'features' differs from PyTorch"):
        export(detector, "torch-export", tmp_path / "out", 1, AqrOptions.of_model())


def test_the_difference_is_relative_and_forgives_single_queries() -> None:
    expected = np.random.default_rng(0).normal(0, 5, (1000,))
    assert difference(expected + 0.05, expected) == pytest.approx(0.01, rel=0.1)
    moved = expected.copy()
    moved[3] += 100
    assert difference(moved, expected) == 0.0
    assert difference(expected[:1], expected) == float("inf")
    assert not difference(np.full(1000, np.nan), expected) <= TOLERANCE
