# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Lamps of vehicles: what shines, and the light of headlights on the street."""

import numpy as np
from numpy.typing import NDArray

from aqr_perception.simulator.raycasting import SCENERY
from aqr_perception.simulator.street.materials import INDEX
from aqr_perception.simulator.street.street_scene import StreetScene

_Floats = NDArray[np.float32]
_WHITE, _RED, _AMBER = (
    np.array(colour, np.float32) for colour in ((0.95, 1.0, 1.0), (0.03, 0.03, 1.0), (0.02, 0.5, 1.0))
)
_HEADLIGHTS = 6
"""Number of the nearest vehicles whose headlights light the street."""


def glow(
    scene: StreetScene, time: float, material: NDArray[np.int64], owner: NDArray[np.int64], colour: _Floats
) -> _Floats:
    """Return the light (N, 3) that lamps emit by themselves at their surfaces."""
    light = np.zeros((len(material), 3), np.float32)
    states = np.array([_state(scene, index, time) for index in range(len(scene.actors))] + [(0, 0, 0, 0)], np.float32)
    state = states[np.where(owner == SCENERY, len(scene.actors), owner)]
    for name, column, tint in (("headlamp", 0, _WHITE), ("tail", 1, _RED), ("brake", 2, _RED), ("beacon", 3, _AMBER)):
        lit = np.flatnonzero(material == INDEX[name])
        light[lit] = state[lit, column, None] * tint
    signals = np.flatnonzero((material == INDEX["beacon"]) & (owner == SCENERY))  # traffic lights have their own colour
    light[signals] = 2.0 * colour[signals]
    if scene.light.street_lamp.any():
        light[material == INDEX["streetlamp"]] = 12.0 * scene.light.street_lamp
    return light


def _state(scene: StreetScene, index: int, time: float) -> tuple[float, float, float, float]:
    """Return the brightness of an object's headlights, tail lights, third brake light and beacon."""
    track = scene.actors[index].track
    driving = track.pace is not None and not track.parked
    on = driving and (scene.light.lamps or index % 3 == 0)  # some drive with daytime lights
    brakes = track.pace is not None and driving and track.pace.braking(time)
    tail = 3.0 if brakes else 0.6 if on and scene.light.lamps else 0.0
    flash = 4.0 if (time * 1.5 + 0.37 * index) % 1.0 < 0.5 else 0.3
    return (9.0 if on else 0.0, tail, 3.0 if brakes else 0.0, flash)


def headlights(scene: StreetScene, time: float, points: _Floats, normals: _Floats) -> _Floats:
    """Return the light (N, 3) of the own headlights and those of the nearest vehicles; they cast no shadows."""
    total = np.zeros(len(points), np.float32)
    for pose, strength in _sources(scene, time):
        offset = points - pose[:3, 3].astype(np.float32)
        ahead = offset @ pose[:3, 0].astype(np.float32)
        near = np.flatnonzero((ahead > 0.2) & (ahead < 60.0))
        offset, ahead = offset[near], ahead[near]
        aside, up = offset @ pose[:3, 1].astype(np.float32), offset @ pose[:3, 2].astype(np.float32)
        squared = ahead**2 + aside**2 + up**2
        beam = np.exp(-((aside / ahead / 0.38) ** 2)) * np.exp(-((np.maximum(up / ahead - 0.01, 0) / 0.035) ** 2))
        facing = np.clip(-np.einsum("ij,ij->i", normals[near], offset) / np.sqrt(squared), 0, 1)
        total[near] += strength * beam * (0.1 + facing) / (1.0 + squared / 90.0)
    return total[:, None] * _WHITE


def _sources(scene: StreetScene, time: float) -> list[tuple[NDArray[np.float64], float]]:
    """Return pose (x along the beam) and strength of each pair of headlights."""
    if not scene.light.lamps:
        return []
    own = scene.vehicle_to_world(time)
    own[:3, 3] += 3.7 * own[:3, 0] + 0.7 * own[:3, 2]
    found = []
    for index, actor in enumerate(scene.actors):
        if actor.track.pace is not None and actor.size[0] > 1.6 and actor.size[2] > 1.2:
            pose = scene.pose_of(index, time)
            away = float(np.hypot(*(pose[:2, 3] - own[:2, 3])))
            if away < 60 and bool((actor.figure.body.materials == INDEX["headlamp"]).any()):
                pose[:3, 3] += actor.size[0] / 2 * pose[:3, 0] + (0.7 - actor.size[2] / 2) * pose[:3, 2]
                found.append((away, pose))
    found.sort(key=lambda entry: entry[0])
    return [(own, 1.2), *((pose, 0.8) for _, pose in found[:_HEADLIGHTS])]
