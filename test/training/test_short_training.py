# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A short training by ``aqr_perception train``, from the simulator to the exported weights."""

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml
from helpers.own_classes import OWN
from helpers.small_fusion import SMALL
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aqr_perception.benchmarks.inputs import made_up_frame
from aqr_perception.cli import main
from aqr_perception.detector import Detector
from aqr_perception.models.weights.checkpoint import CheckpointError, read_weights
from aqr_perception.options import DetectionOptions


def losses(folder: Path) -> list[float]:
    """Return the total loss: one mean for each ten steps."""
    (events,) = folder.glob("events.*")
    curves = EventAccumulator(str(events))
    curves.Reload()
    return [point.value for point in curves.Scalars("loss/total")]


@pytest.mark.slow
def test_a_short_training_halves_its_loss(tmp_path: Path) -> None:
    preset = tmp_path / "small.yaml"
    preset.write_text(yaml.safe_dump(SMALL))
    run = tmp_path / "run"
    command = ["train", "--preset", str(preset), "--data-root", str(tmp_path), "--output", str(run), "--workers", "0"]
    length = ["--frames", "2", "--overfit", "--steps", "40", "--learning-rate", "3e-3", "--schedule", "cosine"]
    assert main([*command, *length, "--no-augmentation", "--no-corruption", "--device", "cpu"]) == 0
    curve = losses(run)
    assert curve[-1] < curve[0] / 2
    (state,) = (run / "checkpoints").glob("step_*.pt")
    final, last = (read_weights(path).tensors for path in (run / "final.safetensors", state))
    assert all(torch.equal(final[key], last[key]) for key in final.keys() | last.keys())


@pytest.mark.slow
def test_a_training_on_own_classes_ends_with_weights_that_only_this_list_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset, reordered = tmp_path / "small.yaml", tmp_path / "reordered.yaml"
    preset.write_text(yaml.safe_dump({**SMALL, "classes": list(OWN)}))
    reordered.write_text(yaml.safe_dump({**SMALL, "classes": list(OWN[::-1])}))
    run = tmp_path / "run"
    command = ["train", "--data-root", str(tmp_path), "--output", str(run), "--workers", "0", "--device", "cpu"]
    command += ["--frames", "2", "--validate-every", "2", "--validation-frames", "1"]
    assert main([*command, "--preset", str(preset), "--steps", "2"]) == 0
    for name in ("final", "best"):
        detector = Detector(str(preset), str(run / f"{name}.safetensors"), "cpu", "fp32")
        frame = dataclasses.replace(made_up_frame(), points=None)
        found = detector.detect(frame, DetectionOptions(score_threshold=0.0)).detections
        assert found.classes == OWN and len(found) > 0
        with pytest.raises(CheckpointError, match="was trained with the classes car, truck, pedestrian, forklift"):
            Detector(str(reordered), str(run / f"{name}.safetensors"), "cpu", "fp32")
    (state,) = (run / "checkpoints").glob("step_*.pt")
    with pytest.raises(CheckpointError, match="was trained with the classes"):
        Detector(str(reordered), str(state), "cpu", "fp32")
    capsys.readouterr()
    assert main([*command, "--preset", str(reordered), "--steps", "3", "--resume"]) == 1
    assert "was trained with the classes car, truck, pedestrian, forklift" in capsys.readouterr().err
    assert main([*command, "--preset", str(preset), "--steps", "3", "--resume"]) == 0
