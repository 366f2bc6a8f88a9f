# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A small preset with a LiDAR grid that ends before its point range, like the published 0.1 m model's."""

from pathlib import Path

from aqr_perception.models.config.presets import Preset, load_preset

POINT_RANGE = (-54.0, -40.0, -5.0, 54.0, 40.0, 3.0)
BEV_RANGE = (-54.0, -40.0, 48.4, 36.8)
"""Extent of the grid in metres: 256 x 192 voxels of 0.4 m from the lower corner of the range."""
CELL = 3.2
"""Edge length of a feature cell in metres."""
GRID = (24, 32)
"""Rows and columns of the feature grid."""

_PRESET = """\
description: for tests
point_range: [-54.0, -40.0, -5.0, 54.0, 40.0, 3.0]
image: {size: [96, 64], backbone: resnet18, width: 8}
points:
  voxel_size: [0.4, 0.4, 0.2]
  grid: [256, 192, 40]
  encoder_channels: [8, 8, 8, 8]
  encoder_output: 8
  backbone_channels: [8, 8]
  backbone_layers: [1, 1]
  neck_channels: 8
decoder: {channels: 32, queries: 60, layers: 2, heads: 4, feedforward: 32, depths: 8}
"""
_ROUTERS = {
    "cmt": "aqr: {mode: both}\n",
    "mome": "architecture: mome\n",
    "aqr_cmt": """\
architecture: aqr_cmt
aqr:
  mode: bias
  activation: tanh
  router_attention: global
  router_bev_window: 5
  router_image_window: 5
  bev_window: 8
  image_window: 8
""",
}


def write_short_grid(folder: Path, architecture: str = "cmt") -> str:
    """Write the preset of an architecture; return its path."""
    path = folder / f"short_grid_{architecture}.yaml"
    path.write_text(_PRESET + _ROUTERS[architecture])
    return str(path)


def short_grid(folder: Path) -> Preset:
    """Return the preset."""
    return load_preset(write_short_grid(folder))
