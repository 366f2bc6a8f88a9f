"""A short training by ``aqr_perception train``, from the simulator to the exported weights."""

from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aqr_perception.cli import main

SMALL = {
    "description": "aqr_tiny, made smaller",
    "point_range": [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0],
    "image": {"size": [160, 64], "backbone": "resnet18", "width": 8},
    "points": {
        "voxel_size": [0.4, 0.4, 0.25],
        "grid": [256, 256, 32],
        "max_voxels": 20000,
        "encoder_channels": [8, 8, 16, 16],
        "encoder_output": 16,
        "backbone_channels": [32, 32],
        "backbone_layers": [1, 1],
        "neck_channels": 16,
    },
    "sweeps": 1,
    "decoder": {
        "channels": 64,
        "queries": 60,
        "layers": 2,
        "heads": 4,
        "feedforward": 64,
        "depths": 8,
        "proposals": {"bev": 30, "image": 20},
    },
    "aqr": {"mode": "both", "bev_window": 5, "image_window": 5, "router_image_window": 3},
}


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
    assert (run / "final.safetensors").is_file()
