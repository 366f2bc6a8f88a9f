# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Preset entries of a small fusion model, for tests of whole commands and of training."""

from pathlib import Path
from typing import Literal

import yaml

from aqr_perception.models.config.presets import preset_directory

SMALL: dict[str, object] = {
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


def small_aqr_cmt(mode: Literal["bias", "modulation"] = "bias", **changed: object) -> dict[str, object]:
    """Return the entries of a small AQR-CMT that is trained as the shipped preset of its mode."""
    shipped = {"bias": "aqr_cmt_voxel0100_r50_800x320", "modulation": "aqr_cmt_modulation_voxel0100_r50_800x320"}[mode]
    values = yaml.safe_load((preset_directory() / f"{shipped}.yaml").read_text())
    decoder = {"channels": 64, "queries": 40, "layers": 2, "heads": 4, "feedforward": 64, "depths": 8}
    return {**values, **{name: SMALL[name] for name in ("image", "points", "sweeps")}, "decoder": decoder, **changed}


def write_preset(folder: Path, entries: dict[str, object], name: str = "small") -> str:
    """Write a preset's file and return its path."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(entries))
    return str(path)
