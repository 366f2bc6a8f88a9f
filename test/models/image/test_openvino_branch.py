# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Image branch in OpenVINO: the same features, fewer cameras, and the fall-back to PyTorch."""

import logging
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_fusion import SMALL, write_preset

from aqr_perception.benchmarks.inputs import made_up_frame
from aqr_perception.detector import Detector
from aqr_perception.frame import Frame
from aqr_perception.models import build_model
from aqr_perception.models.image import efficientnet_lite
from aqr_perception.models.image.openvino_branch import OpenVinoBranch
from aqr_perception.options import OptionError


@pytest.mark.slow
def test_features_are_pytorchs_and_fewer_cameras_need_no_compilation(tmp_path: Path, one_thread: None) -> None:
    pytest.importorskip("openvino", reason="the image branch in OpenVINO needs openvino")
    model = build_model(write_preset(tmp_path, SMALL))
    images = torch.randn(1, 3, 3, 64, 160, generator=torch.Generator().manual_seed(0))
    branch = OpenVinoBranch(model, model.image_features, torch.float32, tmp_path / "cache")
    with torch.inference_mode():
        expected = model.image_features(images)
        assert expected is not None
        torch.testing.assert_close(branch(images), expected, atol=1e-4, rtol=1e-3)
        compiled = branch._compiled
        torch.testing.assert_close(branch(images[:, 1:]), expected[:, 1:], atol=1e-4, rtol=1e-3)
        assert branch._compiled is compiled
        first = branch(images)
        branch(images + 1)
        torch.testing.assert_close(first, expected, atol=1e-4, rtol=1e-3)  # no later call overwrites it
    assert list((tmp_path / "cache").iterdir()), "compiled branches are kept"


@pytest.mark.slow
def test_a_detector_in_bf16_has_features_to_bf16s_tolerance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason="the image branch in OpenVINO needs openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    frame = made_up_frame()
    # OpenVINO rounds all layers; PyTorch computes the first ones in float32.
    monkeypatch.setattr(efficientnet_lite, "_in_float32", lambda device: nullcontext())
    exact, torch_bf16 = (
        Detector("aqr_tiny", None, "cpu", precision).extract(Frame(0, None, frame.cameras)).maps.image
        for precision in ("fp32", "bf16")
    )
    detector = Detector("aqr_tiny", None, "cpu", "bf16", image_backend="openvino")
    found = detector.extract(Frame(0, None, frame.cameras)).maps.image
    assert exact is not None and torch_bf16 is not None and found is not None
    assert detector.image_backend == "openvino"
    assert float((found - exact).std()) < 1.2 * float((torch_bf16 - exact).std())


def test_a_missing_library_falls_back_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    preset = write_preset(tmp_path, SMALL)
    detector = Detector(preset, "random", "cpu", "fp32", image_backend="openvino")
    assert detector.image_backend == "torch" and "aqr_perception[openvino]" in caplog.text
    plain = Detector(preset, "random", "cpu", "fp32")
    np.testing.assert_array_equal(
        detector.detect(made_up_frame()).detections.boxes, plain.detect(made_up_frame()).detections.boxes
    )


@pytest.mark.slow
def test_a_branch_that_cannot_be_converted_falls_back_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    openvino = pytest.importorskip("openvino", reason="the image branch in OpenVINO needs openvino")

    def fail(*_: object) -> None:
        raise RuntimeError("no rule for aten::moon")

    monkeypatch.setattr(openvino, "convert_model", fail)
    detector = Detector(write_preset(tmp_path, SMALL), "random", "cpu", "fp32", image_backend="openvino")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            detector.detect(made_up_frame())
    assert detector.image_backend == "torch"
    assert caplog.text.count("no rule for aten::moon") == 1


def test_an_unknown_backend_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"model\.image_backend is 'tensorrt'"):
        Detector(write_preset(tmp_path, SMALL), "random", "cpu", "fp32", image_backend="tensorrt")  # type: ignore[arg-type]
