# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Patterns on surfaces: markings, asphalt, slabs, grass, facades with windows, foliage and warning stripes."""

from enum import IntEnum
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.simulator.street.materials import INDEX
from aqr_perception.simulator.street.terrain import Street

_Floats = NDArray[np.float32]
_TILE = 512


class Ground(IntEnum):
    """Kinds of ground."""

    ASPHALT = 0
    MARKING = 1
    PAVEMENT = 2
    KERB = 3
    GRASS = 4


_GROUND_COLOURS = np.array(
    [(0.075, 0.075, 0.075), (0.55, 0.56, 0.56), (0.2, 0.21, 0.215), (0.3, 0.3, 0.3), (0.035, 0.1, 0.06)], np.float32
)
GROUND_REFLECTIVITY = np.array([0.16, 0.6, 0.24, 0.3, 0.32], np.float32)
"""LiDAR reflectivity by kind of ground."""
_LIT_WINDOWS = 0.35


@cache
def _noise_tile() -> _Floats:
    """Return (512, 512) smooth periodic noise in 0..1 with details of many sizes."""
    rng = np.random.default_rng(0x9015E)
    total = np.zeros((_TILE, _TILE), np.float32)
    for octave, weight in ((4, 0.3), (16, 0.25), (64, 0.25), (256, 0.2)):
        coarse = rng.random((octave, octave)).astype(np.float32)
        padded = np.pad(coarse, 2, mode="wrap")
        scale = _TILE // octave
        grown = cv2.resize(padded, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        total += weight * grown[2 * scale : 2 * scale + _TILE, 2 * scale : 2 * scale + _TILE]
    lower, upper = np.percentile(total, (1, 99))
    tile: _Floats = np.clip((total - lower) / (upper - lower), 0, 1).astype(np.float32)
    return tile


def noise(x: NDArray[Any], y: NDArray[Any], size: float) -> _Floats:
    """Return smooth noise (N,) in 0..1 at two coordinates; the pattern repeats after `size` metres."""
    scale = _TILE / size
    column = (x * scale).astype(np.int64) & (_TILE - 1)
    row = (y * scale).astype(np.int64) & (_TILE - 1)
    values: _Floats = _noise_tile()[row, column]
    return values


def ground_kinds(street: Street, s: NDArray[np.float64], d: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the kind of ground (N,) at road coordinates; see `Ground`."""
    across, fade = np.abs(d), street.outside_crossing(s)
    kinds = np.full(len(s), int(Ground.ASPHALT))
    marked = np.abs(across - street.lanes * street.lane_width) < 0.07
    for lane in range(1, street.lanes):
        marked |= (np.abs(across - lane * street.lane_width) < 0.07) & (s % 9.0 < 3.6)
    marked |= (across < 0.08) & ((s % 6.0 < 3.0) if street.lanes == 1 else np.abs(across - 0.0) < 0.08)
    kinds[marked & (fade > 0)] = Ground.MARKING
    if street.crossing is not None:
        middle, half = street.crossing
        zebra = (np.abs(np.abs(s - middle) - half - 3.2) < 1.6) & (across < street.kerb) & (d % 1.0 < 0.5)
        kinds[zebra] = Ground.MARKING
    beyond = (across > street.kerb) & (fade > 0)
    kinds[beyond] = np.where(across[beyond] > street.edge, Ground.GRASS, Ground.PAVEMENT)
    kinds[beyond & (across < street.kerb + 0.18)] = Ground.KERB
    return kinds


def ground_colours(
    street: Street, points: _Floats, s: NDArray[np.float64], d: NDArray[np.float64], kinds: NDArray[np.int64]
) -> _Floats:
    """Return the colours (N, 3) of the ground."""
    colour = _GROUND_COLOURS[kinds]
    coarse, fine = noise(points[:, 0], points[:, 1], 97.0), noise(points[:, 0], points[:, 1], 9.0)
    shade = 0.6 + 0.45 * coarse + 0.4 * fine
    shade[kinds == Ground.MARKING] = 0.45 + 0.35 * coarse[kinds == Ground.MARKING] + 0.4 * fine[kinds == Ground.MARKING]
    slabs = (kinds == Ground.PAVEMENT) & ((s % 0.8 < 0.05) | (np.abs(d) % 0.8 < 0.05))
    shade[slabs] *= 0.7
    cracks = (kinds == Ground.ASPHALT) & (np.abs(noise(points[:, 0], points[:, 1], 31.0) - 0.5) < 0.012)
    shade[cracks] *= 0.55
    grass = kinds == Ground.GRASS
    colour[grass] += (coarse[grass, None] > 0.62) * np.array((0.03, 0.03, 0.09), np.float32)
    painted: _Floats = (colour * shade[:, None]).astype(np.float32)
    return painted


def patterned(
    colour: _Floats, material: NDArray[np.int64], points: _Floats, normal: _Floats, night: bool
) -> tuple[_Floats, _Floats]:
    """Return colours (N, 3) of surfaces other than the ground with their patterns, and light (N,) of lit windows."""
    colour, glow = colour.copy(), np.zeros(len(colour), np.float32)
    wall = np.flatnonzero(material == INDEX["wall"])
    if len(wall):
        colour[wall], glow[wall] = _facade(colour[wall], points[wall], normal[wall], night)
    for name, size, depth in (("leaves", 5.0, 1.1), ("bark", 3.0, 0.8), ("concrete", 11.0, 0.4), ("load", 4.0, 0.7)):
        rough = np.flatnonzero(material == INDEX[name])
        at = points[rough]
        colour[rough] *= (1 - depth / 2 + depth * noise(at[:, 0] + at[:, 1] * 0.7, at[:, 2] + at[:, 1] * 0.6, size))[
            :, None
        ]
    return colour, glow


def _facade(colour: _Floats, points: _Floats, normal: _Floats, night: bool) -> tuple[_Floats, _Floats]:
    along = points[:, 0] * -normal[:, 1] + points[:, 1] * normal[:, 0]
    upright = np.abs(normal[:, 2]) < 0.5
    floor, bay = np.floor(points[:, 2] / 3.2), np.floor(along / 2.7)
    window = (points[:, 2] % 3.2 > 1.0) & (points[:, 2] % 3.2 < 2.5) & (along % 2.7 > 0.7) & (along % 2.7 < 2.0)
    frame = window & ((along % 2.7 < 0.8) | (along % 2.7 > 1.9) | (points[:, 2] % 3.2 < 1.12))
    window &= upright & (points[:, 2] > 0.9)
    bricks = 0.8 + 0.3 * noise(along, points[:, 2], 3.0) + 0.2 * noise(along, points[:, 2], 40.0)
    bricks[points[:, 2] < 0.6] *= 0.75
    colour = colour * bricks[:, None].astype(np.float32)
    colour[window] = (0.05, 0.045, 0.04)
    colour[frame & upright & (points[:, 2] > 0.9)] = (0.5, 0.5, 0.5)
    lit = window & (np.abs(np.sin(floor * 12.9898 + bay * 78.233) * 43758.5453) % 1.0 < _LIT_WINDOWS)
    return colour, (lit & night).astype(np.float32) * 0.5
