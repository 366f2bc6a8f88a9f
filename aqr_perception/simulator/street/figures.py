# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""People, two-wheelers with riders, cones and barriers; limbs swing with the distance walked."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from aqr_perception.simulator.solids import Mesh, merged
from aqr_perception.simulator.street.forms import cuboid, lump, taper, tube

Random = np.random.Generator


@dataclass(frozen=True)
class Limb:
    """A part that swings about the y axis.

    Attributes:
        mesh: in its rest position.
        pivot: (3,) joint.
        sense: 1 or -1: swings forward with the left or the right leg.
    """

    mesh: Mesh
    pivot: NDArray[np.float64]
    sense: int

    def turned(self, angle: float) -> Mesh:
        """Return the mesh turned by `sense` times an angle."""
        cos, sin = np.cos(self.sense * angle), np.sin(self.sense * angle)
        turn = np.eye(4)
        turn[:3, :3] = [[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]
        turn[:3, 3] = self.pivot - turn[:3, :3] @ self.pivot
        return self.mesh.moved(turn)


@dataclass(frozen=True)
class Figure:
    """A body with limbs.

    Attributes:
        stretch: factors along x, y and z (3,) after the limbs have turned; None for a body of its final size.
    """

    body: Mesh
    limbs: tuple[Limb, ...] = ()
    stretch: NDArray[np.float64] | None = None

    def posed(self, angle: float) -> Mesh:
        """Return the mesh with the limbs swung by an angle."""
        if not self.limbs:
            return self.body if self.stretch is None else self.body.scaled(self.stretch)
        mesh = merged([self.body, *(limb.turned(angle) for limb in self.limbs)])
        return mesh if self.stretch is None else mesh.scaled(self.stretch)


SWING = 0.42
"""Largest angle of a limb in radians."""


def pedestrian(rng: Random) -> Figure:
    """Return a standing or walking person, perhaps with a bag, a skirt, a hat or a high-visibility vest."""
    skirt, bag, vest, hat = rng.random(4) < (0.15, 0.3, 0.12, 0.2)
    stout = rng.uniform(0.85, 1.25)
    body = [
        taper((0, 0, 0.84), (0.2 * stout, 0.34), (0, 0, 1.12), (0.19 * stout, 0.3), "cloth"),
        taper((0, 0, 1.1), (0.2 * stout, 0.3), (0.01, 0, 1.47), (0.22 * stout, 0.42), "cloth"),
        tube((0.01, 0, 1.45), (0.02, 0, 1.56), 0.06, "skin", 6),
        lump((0.03, 0, 1.64), (0.11, 0.09, 0.13), "skin"),
        lump((0.01, 0, 1.69), (0.11, 0.1, 0.1), "plastic"),
    ]
    if skirt:
        body.append(taper((0, 0, 0.45), (0.4, 0.42), (0, 0, 0.9), (0.2, 0.3), "trousers"))
    if bag:
        body.append(cuboid((-0.17, 0, 1.25), (0.14, 0.28, 0.4), "trousers"))
    if vest:
        body += [cuboid((0.005, 0, z), (0.25 * stout, 0.41, 0.06), "band") for z in (1.15, 1.32)]
    if hat:
        body.append(taper((0.02, 0, 1.7), (0.28, 0.26), (0.02, 0, 1.78), (0.16, 0.16), "cloth"))
    limbs = []
    for side in (-1, 1):
        hip, shoulder = np.array([0.0, side * 0.1, 0.86]), np.array([0.0, side * 0.22, 1.42])
        leg = [
            tube(hip, (0.02, side * 0.1, 0.46), 0.085, "trousers", 6, 0.065),
            tube((0.02, side * 0.1, 0.46), (-0.02, side * 0.1, 0.06), 0.062, "trousers", 6, 0.05),
            cuboid((0.04, side * 0.1, 0.04), (0.25, 0.09, 0.08), "plastic"),
        ]
        elbow = (-0.02, side * 0.27, 1.12)
        arm = [tube(shoulder, elbow, 0.055, "cloth", 6), tube(elbow, (0.08, side * 0.26, 0.88), 0.042, "skin", 6)]
        limbs += [Limb(merged(leg), hip, side), Limb(merged(arm), shoulder, -side)]
    return Figure(merged(body), tuple(limbs))


def _wheel(x: float, radius: float, thickness: float) -> Mesh:
    """Return a wheel as a flat ring of tubes with spokes, which a ray can pass."""
    corners = [(x + radius * np.cos(a), 0, radius + radius * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 10)]
    rim = [tube(one, other, thickness, "rubber", 4) for one, other in pairwise(corners)]
    return merged([*rim, *(tube((x, 0, radius), corners[k], 0.012, "metal", 3) for k in (0, 3, 6))])


def _rider(seat: float, lean: float, helmet: bool) -> list[Mesh]:
    hips, chest = np.array([-0.18, 0, seat + 0.05]), np.array([-0.18 + lean, 0, seat + 0.5])
    parts = [tube(hips, chest, 0.16, "cloth", 7, 0.19)]
    parts.append(lump(np.add(chest, (0.08, 0, 0.24)), (0.12, 0.1, 0.14), "skin"))
    parts.append(lump(np.add(chest, (0.06, 0, 0.3)), (0.14, 0.12, 0.12), "panel" if helmet else "plastic"))
    for side, knee_z in ((-1, 0.02), (1, -0.12)):
        knee = np.array([0.2, side * 0.16, seat + knee_z - 0.1])
        parts += [
            tube(hips, knee, 0.08, "trousers", 6),
            tube(knee, (0.02, side * 0.15, seat - 0.55 + knee_z), 0.06, "trousers", 6),
        ]
        parts.append(tube(np.add(chest, (0, side * 0.18, 0)), (0.42, side * 0.24, seat + 0.28), 0.05, "cloth", 6))
    return parts


def bicycle(rng: Random) -> Figure:
    """Return a bicycle, with its rider in two of three variants."""
    wheels = [_wheel(x, 0.34, 0.022) for x in (-0.52, 0.52)]
    frame = [
        tube((-0.52, 0, 0.34), (-0.05, 0, 0.3), 0.025, "paint", 5),
        tube((-0.05, 0, 0.3), (-0.2, 0, 0.85), 0.025, "paint", 5),
        tube((-0.18, 0, 0.75), (0.38, 0, 0.8), 0.028, "paint", 5),
        tube((-0.05, 0, 0.3), (0.38, 0, 0.75), 0.03, "paint", 5),
        tube((0.52, 0, 0.34), (0.36, 0, 1.02), 0.025, "metal", 5),
        cuboid((0.36, 0, 1.04), (0.06, 0.56, 0.05), "plastic"),
        cuboid((-0.22, 0, 0.9), (0.26, 0.14, 0.07), "plastic"),
        cuboid((-0.86, 0, 0.62), (0.02, 0.07, 0.06), "tail"),
    ]
    rider = _rider(0.88, rng.uniform(0.15, 0.35), bool(rng.random() < 0.5)) if rng.random() < 0.66 else []
    return Figure(merged([*wheels, *frame, *rider]))


def motorcycle(rng: Random) -> Figure:
    """Return a motorcycle or scooter, with its rider in two of three variants."""
    wheels = [tube((x, -0.07, 0.32), (x, 0.07, 0.32), 0.32, "rubber", 10) for x in (-0.68, 0.7)]
    body = [
        prism_body(rng),
        tube((0.7, 0, 0.32), (0.45, 0, 1.0), 0.05, "metal", 6),
        cuboid((0.45, 0, 1.02), (0.08, 0.74, 0.06), "plastic"),
        cuboid((0.6, 0, 0.86), (0.12, 0.18, 0.16), "headlamp"),
        cuboid((-0.9, 0, 0.75), (0.08, 0.2, 0.1), "tail"),
        cuboid((-0.25, 0, 0.84), (0.7, 0.26, 0.1), "plastic"),
        tube((-0.3, -0.16, 0.3), (-0.85, -0.18, 0.4), 0.06, "metal", 6),
    ]
    if rng.random() < 0.3:
        body.append(cuboid((-0.85, 0, 1.0), (0.36, 0.4, 0.34), "plastic"))
    rider = _rider(0.85, rng.uniform(0.1, 0.4), True) if rng.random() < 0.66 else []
    return Figure(merged([*wheels, *body, *rider]))


def prism_body(rng: Random) -> Mesh:
    """Return tank and fairing of a motorcycle."""
    return merged(
        [
            taper((0.05, 0, 0.35), (0.7, 0.26), (0.1, 0, 0.72), (0.6, 0.3), "metal"),
            taper((0.15, 0, 0.7), (0.6, 0.28), (0.2, 0, rng.uniform(0.92, 1.02)), (0.35, 0.22), "paint"),
            taper((-0.75, 0, 0.6), (0.4, 0.2), (-0.78, 0, 0.8), (0.45, 0.16), "paint"),
        ]
    )


def traffic_cone(rng: Random) -> Figure:
    """Return a cone or a channeliser with reflecting bands."""
    foot = cuboid((0, 0, 0.03), (0.4, 0.4, 0.06), "plastic")
    if rng.random() < 0.25:
        parts = [tube((0, 0, 0.05), (0, 0, 1.0), 0.09, "paint", 9)]
        return Figure(
            merged([foot, *parts, *(tube((0, 0, z), (0, 0, z + 0.12), 0.095, "band", 9) for z in (0.5, 0.75))])
        )
    body = tube((0, 0, 0.05), (0, 0, 1.0), 0.16, "paint", 10, 0.03)
    bands = [
        tube((0, 0, z), (0, 0, z + h), 0.172 - 0.137 * z, "band", 10, 0.172 - 0.137 * (z + h))
        for z, h in ((0.35, 0.16), (0.62, 0.1))
    ]
    return Figure(merged([foot, body, *bands]))


def barrier(rng: Random) -> Figure:
    """Return a jersey barrier, a water-filled barrier or a fence with warning boards."""
    if rng.random() < 0.6:
        foot = taper((0, 0, 0), (0.5, 2.5), (0, 0, 0.25), (0.46, 2.5), "paint")
        wall = taper((0, 0, 0.25), (0.42, 2.5), (0, 0, 1.0), (0.16, 2.46), "paint")
        return Figure(merged([foot, wall, *(cuboid((0, y, 0.7), (0.3, 0.5, 0.16), "band") for y in (-0.8, 0.8))]))
    legs = [cuboid((0, y, 0.05), (0.5, 0.1, 0.1), "plastic") for y in (-1.1, 1.1)]
    posts = [tube((0, y, 0), (0, y, 1.0), 0.04, "metal", 5) for y in (-1.1, 1.1)]
    boards = [
        cuboid((0, -1.0 + 0.5 * k, z), (0.05, 0.5, 0.22), "band" if k % 2 else "paint")
        for k in range(5)
        for z in (0.55, 0.88)
    ]
    return Figure(merged([*legs, *posts, *boards]))
