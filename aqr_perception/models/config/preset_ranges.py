# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Ranges of the numbers in a preset: wider than any model in use, and narrow enough that a model can be built."""

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from typing import Any

_CHANNELS = (1, 8192)
_LAYERS = (1, 100)
_METRES = (-10_000.0, 10_000.0)

_RANGES: Mapping[str, tuple[float, float]] = {
    "point_range": _METRES,
    "sweeps": (1, 100),
    "sweep_interval": (0.0, 2.0),
    "model_frame.height": (-100.0, 100.0),
    "image.size": (32, 8192),
    "image.width": (1, 1024),
    "image.stride": (8, 16),
    "image.mean": (-1000.0, 1000.0),
    "image.std": (1e-3, 1000.0),
    "image.vit.registers": (0, 1000),
    "image.vit.positions": (1, 1000),
    "image.vit.layer_scale": (0.0, 1000.0),
    "image.vit.window": (0, 1000),
    "image.vit.global_blocks": (1, 1000),
    "image.vit.pyramid_channels": _CHANNELS,
    "points.voxel_size": (1e-3, 1000.0),
    "points.grid": (1, 8192),
    "points.pillars.channels": _CHANNELS,
    "points.pillars.blocks": (0, 100),
    "points.max_points": (1, 10_000),
    "points.max_voxels": (1, 10_000_000),
    "points.encoder_channels": _CHANNELS,
    "points.encoder_output": _CHANNELS,
    "points.backbone_channels": _CHANNELS,
    "points.backbone_layers": (0, 100),
    "points.neck_channels": _CHANNELS,
    "points.intensity_quantiles": (0.0, 255.0),
    "decoder.channels": _CHANNELS,
    "decoder.queries": (1, 100_000),
    "decoder.layers": _LAYERS,
    "decoder.heads": (1, 256),
    "decoder.feedforward": (1, 65_536),
    "decoder.depths": (1, 1000),
    "decoder.image_pooling": (1, 8),
    "decoder.bev_pooling": (1, 8),
    "decoder.head_kernel": (1, 31),
    "bevformer.grid": (1, 1000),
    "bevformer.encoder_layers": _LAYERS,
    "bevformer.heights": (1, 64),
    "bevformer.points": (1, 1024),
    "bevformer.rotation_centre": (-10_000.0, 10_000.0),
    "bevformer.forward": (-360.0, 360.0),
    "bevformer.camera_azimuths": (-360.0, 360.0),
    "petr.position_range": _METRES,
    "petr.camera_azimuths": (-360.0, 360.0),
    "petr.frame_gap": (0.0, 60.0),
    "aqr_cmt.bias_scale": (-1000.0, 1000.0),
}
"""Smallest and largest value by entry; of a list, each number lies between them."""

_FINITE = (-sys.float_info.max, sys.float_info.max)

_SPANS = ("point_range", "petr.position_range")
"""Entries with x, y, z minimum and maximum."""


def range_problem(preset: Any) -> str | None:
    """Return the first number of a `Preset` that is out of its range, with the range; None if all are in theirs."""
    for name, value in _numbers(preset, ""):
        if name in _SPANS and not all(low < high for low, high in zip(value[:3], value[3:], strict=True)):
            return f"{name} is {list(value)}, but its x, y and z minimum must be below their maximum"
        low, high = _RANGES.get(name, _FINITE)
        if not all(low <= number <= high for number in (value if isinstance(value, tuple) else (value,))):
            shown = list(value) if isinstance(value, tuple) else value
            return f"{name} is {shown}, but must be in {low:g}..{high:g}"
    return None


def _numbers(options: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Return the numbers and lists of numbers of options and of those inside them, by entry."""
    for entry in dataclasses.fields(options):
        value = getattr(options, entry.name)
        # A preset's architecture names its own options.
        name = f"{prefix}{options.architecture if entry.name == 'options' else entry.name}"
        if dataclasses.is_dataclass(value):
            yield from _numbers(value, f"{name}.")
        elif _is_number(value) or (isinstance(value, tuple) and value and all(map(_is_number, value))):
            yield name, value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
