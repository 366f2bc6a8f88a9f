# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Procedural texture of surfaces: lane markings, pavement, grass, windows and leaves."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqr_perception.simulator.road import Road
from aqr_perception.simulator.solids import MATERIALS
from aqr_perception.simulator.traffic import KERB, LANE_WIDTH, PAVEMENT

_ASPHALT, _WALL, _LEAVES, _BARK = (MATERIALS.index(name) for name in ("asphalt", "wall", "leaves", "bark"))
_Colours = NDArray[np.float32]


def textured(
    colour: _Colours, material: NDArray[np.int64], points: NDArray[np.float32], normal: _Colours, road: Road
) -> _Colours:
    """Return the textured colours (N, 3) of points (N, 3) with normals (N, 3) in the world's frame."""
    colour = colour.copy()
    ground = np.flatnonzero(material == _ASPHALT)
    colour[ground] = _ground(points[ground], road)
    wall = np.flatnonzero((material == _WALL) & (np.abs(normal[:, 2]) < 0.5))
    colour[wall] = _windows(colour[wall], points[wall], normal[wall])
    rough = np.flatnonzero((material == _LEAVES) | (material == _BARK))
    colour[rough] *= (0.6 + 0.8 * _noise(points[rough], 5.0))[:, None]
    return colour


def _noise(points: NDArray[Any], scale: float) -> NDArray[np.float32]:
    """Return random values (N,) in 0..1 of points (N, 2 or 3), constant in cells of 1 / scale metres."""
    cells = np.floor(points * scale).astype(np.int64).astype(np.uint64)
    mixed = cells[:, 0] * np.uint64(73856093) ^ cells[:, 1] * np.uint64(19349663)
    if cells.shape[1] > 2:
        mixed ^= cells[:, 2] * np.uint64(83492791)
    mixed = (mixed ^ (mixed >> np.uint64(13))) * np.uint64(1274126177)
    noise: NDArray[np.float32] = ((mixed >> np.uint64(8)) & np.uint64(0xFFFF)).astype(np.float32) / np.float32(65535)
    return noise


def _ground(points: NDArray[np.float32], road: Road) -> _Colours:
    s, d = road.coordinates(points[:, :2])
    across = np.abs(d)
    grain = (0.85 + 0.3 * _noise(points[:, :2], 3.0))[:, None].astype(np.float32)
    colour = np.tile(np.array((0.27, 0.26, 0.25), np.float32), (len(points), 1))
    dashed = (np.abs(across - LANE_WIDTH) < 0.08) & (s % 9.0 < 3.5)
    solid = np.abs(across - 2 * LANE_WIDTH) < 0.07
    middle = np.abs(across - 0.12) < 0.06
    colour[dashed | solid] = (0.8, 0.8, 0.8)
    colour[middle] = (0.2, 0.65, 0.8)
    pavement = (across > KERB) & (across <= KERB + PAVEMENT)
    colour[pavement] = (0.45, 0.47, 0.48)
    joints = pavement & ((s % 1.2 < 0.06) | ((across - KERB) % 1.2 < 0.06))
    colour[joints] = (0.33, 0.34, 0.35)
    colour[across > KERB + PAVEMENT] = (0.2, 0.38, 0.27)
    return colour * grain


def _windows(colour: _Colours, points: NDArray[np.float32], normal: _Colours) -> _Colours:
    along = points[:, 0] * -normal[:, 1] + points[:, 1] * normal[:, 0]
    glass = (points[:, 2] % 3.2 > 1.0) & (points[:, 2] % 3.2 < 2.5) & (along % 2.6 > 0.7) & (along % 2.6 < 2.0)
    bricks = (0.9 + 0.2 * _noise(points, 2.0))[:, None].astype(np.float32)
    return np.where(glass[:, None], np.array((0.22, 0.2, 0.17), np.float32), colour * bricks)
