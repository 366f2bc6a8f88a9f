# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Shapes, sizes, colours and speeds of the ten nuScenes classes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import CLASSES
from aqr_perception.simulator.solids import Mesh, box, cone, cylinder, ellipsoid, frustum, merged


@dataclass(frozen=True)
class ObjectKind:
    """Properties of one class.

    Attributes:
        size: mean length, width and height in metres, close to nuScenes' means.
        spread: relative standard deviation of a common size factor; each dimension also has a factor with half of it.
        speed: range of a moving object's speed, m/s.
        moving: share of the objects that move.
    """

    size: tuple[float, float, float]
    spread: float
    speed: tuple[float, float]
    moving: float


KINDS: dict[str, ObjectKind] = {
    "car": ObjectKind((4.6, 1.95, 1.73), 0.07, (2.0, 14.0), 0.5),
    "truck": ObjectKind((6.9, 2.5, 2.85), 0.12, (2.0, 12.0), 0.5),
    "construction_vehicle": ObjectKind((6.5, 2.85, 3.2), 0.12, (0.0, 0.0), 0.0),
    "bus": ObjectKind((11.0, 2.95, 3.5), 0.08, (2.0, 11.0), 0.6),
    "trailer": ObjectKind((12.0, 2.9, 3.85), 0.1, (2.0, 10.0), 0.4),
    "barrier": ObjectKind((0.5, 2.5, 0.98), 0.06, (0.0, 0.0), 0.0),
    "motorcycle": ObjectKind((2.1, 0.78, 1.47), 0.06, (3.0, 13.0), 0.6),
    "bicycle": ObjectKind((1.7, 0.6, 1.3), 0.06, (2.0, 6.0), 0.6),
    "pedestrian": ObjectKind((0.73, 0.67, 1.77), 0.07, (0.5, 1.8), 0.75),
    "traffic_cone": ObjectKind((0.41, 0.41, 1.07), 0.08, (0.0, 0.0), 0.0),
}

_CAR_COLOURS = np.array(
    [(0.8, 0.8, 0.8), (0.05, 0.05, 0.06), (0.4, 0.4, 0.42), (0.5, 0.2, 0.08), (0.1, 0.1, 0.55), (0.3, 0.35, 0.2),
     (0.6, 0.62, 0.55), (0.1, 0.45, 0.75)],
    np.float32,
)  # fmt: skip
_BARRIER_COLOURS = np.array([(0.75, 0.75, 0.75), (0.1, 0.25, 0.8)], np.float32)
_WORK_COLOURS = np.array([(0.05, 0.6, 0.85), (0.05, 0.4, 0.85)], np.float32)


def draw_size(name: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return random length, width and height of an object of a class."""
    kind = KINDS[name]
    common, own = rng.normal(1.0, kind.spread), rng.normal(1.0, kind.spread / 2, 3)
    return np.array(kind.size) * np.clip(common * own, 0.7, 1.4)


def draw_mesh(name: str, size: NDArray[np.float64], rng: np.random.Generator) -> Mesh:
    """Return the coloured mesh of an object, filling a box of this size around the origin, +x forward."""
    if name in ("construction_vehicle", "barrier", "traffic_cone"):
        paint = _WORK_COLOURS[rng.integers(len(_WORK_COLOURS))]
        if name == "barrier":
            paint = _BARRIER_COLOURS[rng.integers(len(_BARRIER_COLOURS))]
    else:
        paint = _CAR_COLOURS[rng.integers(len(_CAR_COLOURS))]
    colours = {
        "paint": np.clip(paint * rng.uniform(0.7, 1.2), 0, 1),
        "cloth": rng.uniform(0.05, 0.8, 3),
        "trousers": rng.uniform(0.03, 0.4, 3),
        "skin": np.array((0.45, 0.58, 0.75)) * rng.uniform(0.35, 1.1),
    }
    return _unit_mesh(name).scaled(size).painted(colours)


@cache
def _unit_mesh(name: str) -> Mesh:
    """Return a class's shape in the unit box -0.5..0.5."""
    mesh = _SHAPES[name]()
    lower, upper = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    vertices = (mesh.vertices - lower) / (upper - lower) - 0.5
    return Mesh(vertices.astype(np.float32), mesh.faces, mesh.materials, mesh.colours)


def _wheels(x: tuple[float, ...], half_width: float, radius: float, thickness: float) -> list[Mesh]:
    return [
        cylinder((at, side * half_width, radius), (at, side * (half_width - thickness), radius), radius, "rubber")
        for at in x
        for side in (-1, 1)
    ]


def _lamps(front: float, back: float, half_width: float, z: float) -> list[Mesh]:
    """Return headlights and tail lights, which make a vehicle's heading visible."""
    lamps = []
    for side in (-1, 1):
        lamps.append(box((front, side * half_width, z), (0.06, 0.3, 0.16), "light"))
        lamps.append(
            box((back, side * half_width, z + 0.1), (0.06, 0.25, 0.18), "plastic").painted(
                {"plastic": (0.05, 0.05, 0.7)}
            )
        )
    return lamps


def _car() -> Mesh:
    body = box((0, 0, 0.58), (4.6, 1.85, 0.62), "paint")
    cabin = frustum(((-0.25, 0, 0.88), (2.9, 1.75)), ((-0.4, 0, 1.68), (1.7, 1.4)), "glass")
    roof = box((-0.4, 0, 1.7), (1.75, 1.42, 0.06), "paint")
    return merged([body, cabin, roof, *_wheels((1.4, -1.4), 0.95, 0.33, 0.22), *_lamps(2.3, -2.3, 0.7, 0.68)])


def _truck() -> Mesh:
    cab = box((2.5, 0, 1.35), (1.8, 2.4, 1.9), "paint")
    windscreen = box((3.38, 0, 1.75), (0.1, 2.1, 0.7), "glass")
    side_windows = box((2.9, 0, 1.75), (0.7, 2.44, 0.6), "glass")
    bed = box((-0.95, 0, 1.75), (4.9, 2.5, 2.2), "white")
    frame = box((-0.3, 0, 0.55), (6.6, 1.2, 0.3), "metal")
    wheels = _wheels((2.4, -1.6, -2.7), 1.2, 0.48, 0.35)
    return merged([cab, windscreen, side_windows, bed, frame, *wheels, *_lamps(3.43, -3.42, 0.9, 0.8)])


def _construction_vehicle() -> Mesh:
    tracks = [box((-0.6, side * 1.15, 0.45), (3.8, 0.55, 0.9), "rubber") for side in (-1, 1)]
    deck = box((-0.8, 0, 1.35), (3.4, 2.5, 0.8), "paint")
    cab = box((0.1, 0.6, 2.35), (1.4, 1.1, 1.3), "glass")
    engine = box((-1.8, 0, 1.9), (1.3, 2.3, 0.5), "paint")
    boom = cylinder((0.6, -0.4, 1.6), (2.6, -0.4, 3.1), 0.2, "paint", 6)
    arm = cylinder((2.6, -0.4, 3.1), (3.3, -0.4, 1.0), 0.16, "paint", 6)
    bucket = box((3.35, -0.4, 0.6), (0.8, 1.0, 0.8), "metal")
    return merged([*tracks, deck, cab, engine, boom, arm, bucket])


def _bus() -> Mesh:
    body = box((0, 0, 1.85), (11.0, 2.9, 3.1), "paint")
    windows = box((-0.2, 0, 2.3), (9.6, 2.94, 0.95), "glass")
    front = box((5.48, 0, 2.1), (0.08, 2.5, 1.4), "glass")
    return merged([body, windows, front, *_wheels((3.6, -2.9), 1.46, 0.5, 0.35), *_lamps(5.5, -5.5, 1.1, 0.75)])


def _trailer() -> Mesh:
    container = box((0, 0, 2.5), (12.0, 2.9, 2.7), "white")
    frame = box((0, 0, 1.0), (11.5, 1.3, 0.3), "metal")
    legs = box((3.6, 0, 0.5), (0.3, 1.4, 1.0), "metal")
    return merged([container, frame, legs, *_wheels((-2.6, -3.7, -4.8), 1.35, 0.5, 0.4)])


def _barrier() -> Mesh:
    foot = box((0, 0, 0.12), (0.5, 2.5, 0.24), "paint")
    wall = frustum(((0, 0, 0.24), (0.4, 2.5)), ((0, 0, 0.98), (0.18, 2.5)), "paint")
    stripe = box((0, 0, 0.72), (0.32, 2.0, 0.14), "white")
    return merged([foot, wall, stripe])


def _two_wheeler(radius: float, seat: float, body: float) -> list[Mesh]:
    wheels = [cylinder((at, -0.05, radius), (at, 0.05, radius), radius, "rubber", 12) for at in (-0.65, 0.65)]
    frame = box((0, 0, seat * 0.72), (1.0, body, seat * 0.4), "paint")
    fork = cylinder((0.65, 0, radius), (0.45, 0, seat + 0.25), 0.04, "metal", 6)
    handle = box((0.45, 0, seat + 0.27), (0.06, 0.6, 0.06), "metal")
    return [*wheels, frame, fork, handle]


def _rider(seat: float) -> list[Mesh]:
    legs = [
        cylinder((-0.1, side * 0.16, seat), (0.15, side * 0.18, seat - 0.5), 0.09, "trousers", 6) for side in (-1, 1)
    ]
    torso = frustum(((-0.2, 0, seat), (0.3, 0.36)), ((0.05, 0, seat + 0.55), (0.26, 0.44)), "cloth")
    arms = [
        cylinder((0.05, side * 0.2, seat + 0.5), (0.42, side * 0.25, seat + 0.27), 0.06, "cloth", 6) for side in (-1, 1)
    ]
    head = ellipsoid((0.12, 0, seat + 0.7), (0.12, 0.1, 0.14), "skin")
    return [*legs, torso, *arms, head]


def _motorcycle() -> Mesh:
    lamp = box((0.62, 0, 0.85), (0.12, 0.18, 0.16), "light")
    return merged([*_two_wheeler(0.33, 0.78, 0.34), lamp, *_rider(0.82)])


def _bicycle() -> Mesh:
    return merged([*_two_wheeler(0.34, 0.75, 0.06), *_rider(0.9)])


def _pedestrian() -> Mesh:
    legs = [cylinder((side * 0.14, side * 0.1, 0), (0, side * 0.1, 0.85), 0.09, "trousers", 6) for side in (-1, 1)]
    torso = frustum(((0, 0, 0.82), (0.24, 0.36)), ((0, 0, 1.45), (0.26, 0.46)), "cloth")
    arms = [cylinder((0, side * 0.27, 1.4), (-side * 0.2, side * 0.3, 0.85), 0.06, "cloth", 6) for side in (-1, 1)]
    head = ellipsoid((0.02, 0, 1.62), (0.12, 0.1, 0.15), "skin")
    return merged([*legs, torso, *arms, head])


def _traffic_cone() -> Mesh:
    foot = box((0, 0, 0.03), (0.41, 0.41, 0.06), "rubber")
    body = cone((0, 0, 0.05), 0.16, 1.02, "plastic")
    band = cylinder((0, 0, 0.5), (0, 0, 0.68), 0.1, "white")
    return merged([foot, body, band])


_SHAPES: dict[str, Callable[[], Mesh]] = {
    "car": _car, "truck": _truck, "construction_vehicle": _construction_vehicle, "bus": _bus, "trailer": _trailer,
    "barrier": _barrier, "motorcycle": _motorcycle, "bicycle": _bicycle, "pedestrian": _pedestrian,
    "traffic_cone": _traffic_cone,
}  # fmt: skip
assert tuple(_SHAPES) == CLASSES == tuple(KINDS)
