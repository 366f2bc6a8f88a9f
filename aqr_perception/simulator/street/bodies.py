# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Bodies of the ten classes: cached variants, stretched to an object's size and painted by class."""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import CLASSES
from aqr_perception.simulator.street import figures, vehicles
from aqr_perception.simulator.street.figures import SWING, Figure
from aqr_perception.simulator.street.forms import painted

VARIANTS = 24
"""Shapes of each class; size and colours vary in addition."""

_CAR = np.array(
    [(0.75, 0.75, 0.75), (0.02, 0.02, 0.02), (0.12, 0.12, 0.12), (0.35, 0.36, 0.36), (0.25, 0.08, 0.03),
     (0.03, 0.03, 0.35), (0.08, 0.12, 0.05), (0.45, 0.5, 0.5), (0.08, 0.16, 0.22), (0.02, 0.2, 0.42)],
    np.float32,
)  # fmt: skip
_CAR_SHARES = np.array([0.24, 0.2, 0.17, 0.15, 0.08, 0.06, 0.03, 0.03, 0.02, 0.02])
_MACHINE = np.array([(0.01, 0.45, 0.75), (0.01, 0.3, 0.75), (0.02, 0.55, 0.8)], np.float32)  # yellow to orange
_CONE = np.array([(0.01, 0.13, 0.75), (0.02, 0.2, 0.8)], np.float32)  # orange
_BARRIER = np.array([(0.03, 0.03, 0.55), (0.5, 0.52, 0.52), (0.02, 0.2, 0.7)], np.float32)  # red, concrete, orange
_BUS = np.array(
    [(0.05, 0.05, 0.4), (0.02, 0.4, 0.55), (0.35, 0.12, 0.03), (0.7, 0.7, 0.7), (0.1, 0.35, 0.08)], np.float32
)

_SHAPES: dict[str, Callable[[np.random.Generator], Figure]] = {
    "car": lambda rng: Figure(vehicles.car(rng)),
    "truck": lambda rng: Figure(vehicles.truck(rng)),
    "construction_vehicle": lambda rng: Figure(vehicles.construction_vehicle(rng)),
    "bus": lambda rng: Figure(vehicles.bus(rng)),
    "trailer": lambda rng: Figure(vehicles.trailer(rng)),
    "barrier": figures.barrier,
    "motorcycle": figures.motorcycle,
    "bicycle": figures.bicycle,
    "pedestrian": figures.pedestrian,
    "traffic_cone": figures.traffic_cone,
}
assert tuple(_SHAPES) == CLASSES


def draw_body(name: str, size: NDArray[np.float64], rng: np.random.Generator) -> Figure:
    """Return an object's body, which fills a box of this size around the origin, +x forward.

    Moving limbs stay inside the box at every angle up to `SWING`.
    """
    shape, extent = _variant(name, int(rng.integers(VARIANTS)))
    colours, stretch = _colours(name, rng), size / extent
    if not shape.limbs:
        return Figure(painted(shape.body.scaled(stretch), colours))
    limbs = tuple(figures.Limb(painted(limb.mesh, colours), limb.pivot, limb.sense) for limb in shape.limbs)
    return Figure(painted(shape.body, colours), limbs, stretch)


@cache
def _variant(name: str, number: int) -> tuple[Figure, NDArray[np.float64]]:
    """Return a shape around the origin, and the extent (3,) of the box that it fills as its limbs swing."""
    figure = _SHAPES[name](np.random.default_rng([0xB0D1, CLASSES.index(name), number]))
    angles = np.linspace(-SWING, SWING, 7) if figure.limbs else (0.0,)
    vertices = np.concatenate([figure.posed(angle).vertices for angle in angles]).astype(np.float64)
    lower, upper = vertices.min(axis=0), vertices.max(axis=0)
    centre = np.eye(4)
    centre[:3, 3] = -(lower + upper) / 2
    limbs = tuple(
        figures.Limb(limb.mesh.moved(centre), limb.pivot + centre[:3, 3], limb.sense) for limb in figure.limbs
    )
    return Figure(figure.body.moved(centre), limbs), upper - lower


def _colours(name: str, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Return the colours of an object's materials: an object's class decides the colour of its paint."""
    if name == "construction_vehicle":
        paint = _MACHINE[rng.integers(len(_MACHINE))]
    elif name == "traffic_cone":
        paint = _CONE[rng.integers(len(_CONE))]
    elif name == "barrier":
        paint = _BARRIER[rng.choice(3, p=(0.45, 0.3, 0.25))]
    elif name == "bus":
        paint = _BUS[rng.integers(len(_BUS))]
    else:
        paint = _CAR[rng.choice(len(_CAR), p=_CAR_SHARES)]
    cloth = rng.uniform(0.01, 0.5) * rng.dirichlet((1.5, 1.5, 1.5)) * 2.4
    panel = np.array((0.65, 0.66, 0.66)) if rng.random() < 0.55 else rng.uniform(0.03, 0.6, 3)
    if name in ("motorcycle", "bicycle"):
        panel = rng.uniform(0.02, 0.8, 3)
    colours = {
        "paint": paint * rng.uniform(0.75, 1.15),
        "cloth": cloth,
        "trousers": rng.uniform(0.01, 0.18) * np.array((1.2, 0.95, 0.85)),
        "skin": np.array((0.2, 0.3, 0.5)) * rng.uniform(0.15, 1.1),
        "load": rng.uniform(0.05, 0.35) * np.array((0.7, 0.9, 1.1)),
    }
    if name in ("truck", "trailer"):
        colours["panel"] = panel
    if name in ("motorcycle", "bicycle"):
        colours["panel"] = panel
    return {key: np.clip(value, 0.0, 1.0).astype(np.float32) for key, value in colours.items()}
