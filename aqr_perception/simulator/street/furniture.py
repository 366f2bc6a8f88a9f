# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Buildings, fences, poles and other things beside the road, among them some that resemble objects in LiDAR points."""

from collections.abc import Callable

import numpy as np

from aqr_perception.simulator.solids import Mesh, merged
from aqr_perception.simulator.street.forms import coloured, cuboid, lump, painted, prism, taper, tube

Random = np.random.Generator


def building(rng: Random, length: float, depth: float) -> Mesh:
    """Return a house of 3 to 24 m with its front at y = -depth / 2, with a roof, a porch or balconies."""
    high = float(rng.choice((rng.uniform(3, 7), rng.uniform(8, 24)), p=(0.5, 0.5)))
    tone = rng.uniform(0.1, 0.55) * np.array((rng.uniform(0.6, 1.05), rng.uniform(0.8, 1.05), 1.1))
    parts = [cuboid((0, 0, high / 2 - 1), (length, depth, high + 2), "wall")]
    if high < 8 and rng.random() < 0.7:
        roof = prism(
            [(-depth / 2 - 0.4, high), (depth / 2 + 0.4, high), (0, high + rng.uniform(1.5, 3.5))],
            [length / 2 + 0.3] * 3,
            "load",
        )
        turn = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        parts.append(coloured(roof.moved(turn), rng.uniform(0.4, 1.0) * np.array((0.07, 0.09, 0.22))))
    if rng.random() < 0.5:
        for x in np.arange(-length / 2 + 2, length / 2 - 1.5, 4.5):
            for z in np.arange(3.4, high - 2, 3.2):
                parts.append(cuboid((x, -depth / 2 - 0.5, z), (2.4, 1.0, 1.0), "concrete"))
    if rng.random() < 0.4:
        parts.append(cuboid((rng.uniform(-0.3, 0.3) * length, -depth / 2 - 0.6, 2.8), (3.0, 1.3, 0.2), "metal"))
    return painted(merged(parts), {"wall": np.clip(tone, 0.04, 0.9)})


def fence(rng: Random, length: float) -> Mesh:
    """Return a fence, guard rail or low wall along x."""
    kind = rng.integers(3)
    if kind == 0:
        high = rng.uniform(0.8, 1.8)
        posts = [
            cuboid((x, 0, high / 2 - 0.3), (0.1, 0.1, high + 0.6), "wood")
            for x in np.arange(-length / 2, length / 2 + 0.1, 2.0)
        ]
        return merged([*posts, *(cuboid((0, 0, z), (length, 0.04, 0.14), "wood") for z in np.arange(0.3, high, 0.35))])
    if kind == 1:
        posts = [cuboid((x, 0, 0.2), (0.08, 0.12, 1.1), "metal") for x in np.arange(-length / 2, length / 2 + 0.1, 4.0)]
        return merged([*posts, cuboid((0, 0.05, 0.6), (length, 0.06, 0.3), "metal")])
    high = rng.uniform(0.5, 1.6)
    return merged(
        [
            cuboid((0, 0, high / 2 - 0.3), (length, 0.25, high + 0.6), "wall"),
            cuboid((0, 0, high), (length, 0.32, 0.08), "concrete"),
        ]
    )


def street_lamp(rng: Random, height: float, towards: float) -> Mesh:
    """Return a lamp post whose arm reaches over the road, along y towards a side (1 or -1)."""
    post = tube((0, 0, -0.3), (0, 0, height), 0.1, "metal", 7, 0.06)
    arm = tube((0, 0, height), (0, towards * 1.5, height + 0.15), 0.04, "metal", 5)
    return merged([post, arm, cuboid((0, towards * 1.6, height + 0.1), (0.3, 0.7, 0.1), "streetlamp")])


def _sign(rng: Random) -> Mesh:
    high, colour = rng.uniform(2.1, 2.8), ((0.02, 0.02, 0.5), (0.4, 0.1, 0.02), (0.02, 0.4, 0.6), (0.7, 0.7, 0.7))
    post = tube((0, 0, -0.3), (0, 0, high), 0.04, "metal", 6)
    if rng.random() < 0.5:
        plate = tube((-0.03, 0, high), (0.03, 0, high), 0.33, "retro", int(rng.choice((3, 8, 12))))
    else:
        plate = cuboid((0, 0, high), (0.05, rng.uniform(0.4, 0.9), rng.uniform(0.4, 0.9)), "retro")
    return merged([post, coloured(plate, colour[rng.integers(4)])])


def _signal(rng: Random) -> Mesh:
    post = tube((0, 0, -0.3), (0, 0, 2.3), 0.07, "metal", 6)
    box = cuboid((0, 0, 2.75), (0.2, 0.32, 0.9), "plastic")
    lit = int(rng.integers(3))
    colour = ((0.02, 0.5, 0.1), (0.02, 0.4, 0.8), (0.02, 0.02, 0.8))[lit]
    return merged([post, box, coloured(cuboid((0, 0, 2.45 + 0.3 * lit), (0.24, 0.2, 0.2), "beacon"), colour)])


def _bollard(rng: Random) -> Mesh:
    high = rng.uniform(0.7, 1.1)
    return merged(
        [
            tube((0, 0, -0.2), (0, 0, high), rng.uniform(0.07, 0.16), "metal", 8),
            lump((0, 0, high), (0.1, 0.1, 0.08), "metal"),
        ]
    )


def _bin(rng: Random) -> Mesh:
    shade = rng.choice([(0.03, 0.08, 0.03), (0.04, 0.04, 0.04), (0.2, 0.1, 0.03)])
    return coloured(tube((0, 0, -0.1), (0, 0, rng.uniform(0.8, 1.2)), 0.26, "plastic", 9, 0.3), shade)


def _hydrant(rng: Random) -> Mesh:
    colour = rng.choice([(0.05, 0.05, 0.3), (0.2, 0.2, 0.2)])
    parts = [tube((0, 0, -0.1), (0, 0, 0.65), 0.13, "metal", 8), lump((0, 0, 0.68), (0.15, 0.15, 0.14), "metal")]
    return coloured(merged([*parts, tube((0, -0.22, 0.48), (0, 0.22, 0.48), 0.06, "metal", 6)]), colour)


def _cabinet(rng: Random) -> Mesh:
    return coloured(
        cuboid((0, 0, 0.5), (rng.uniform(0.4, 0.9), rng.uniform(0.5, 1.4), 1.3), "plastic"),
        rng.uniform(0.15, 0.3) * np.ones(3),
    )


def _bench(rng: Random) -> Mesh:
    legs = [cuboid((0, y, 0.2), (0.4, 0.08, 0.45), "metal") for y in (-0.7, 0.7)]
    return merged(
        [*legs, cuboid((0, 0, 0.45), (0.45, 1.7, 0.06), "wood"), cuboid((0.22, 0, 0.75), (0.05, 1.7, 0.35), "wood")]
    )


def _column(rng: Random) -> Mesh:
    """Return an advertising column or a clad post of a person's size."""
    colour = rng.uniform(0.05, 0.6, 3)
    return coloured(tube((0, 0, -0.2), (0, 0, rng.uniform(1.5, 2.6)), rng.uniform(0.2, 0.5), "panel", 10), colour)


def shelter(rng: Random) -> Mesh:
    """Return a bus shelter, open towards -y."""
    posts = [tube((x, y, -0.1), (x, y, 2.4), 0.05, "metal", 5) for x in (-1.8, 1.8) for y in (-0.6, 0.6)]
    return merged(
        [*posts, cuboid((0, 0, 2.45), (4.0, 1.6, 0.1), "metal"), cuboid((0, 0.6, 1.3), (3.6, 0.04, 1.9), "glass")]
    )


def container(rng: Random) -> Mesh:
    """Return a container or skip on the ground, in size and shape close to a trailer's box."""
    colour = rng.uniform(0.03, 0.4, 3)
    if rng.random() < 0.5:
        return coloured(cuboid((0, 0, 1.3), (rng.uniform(5, 9), 2.45, 2.7), "panel"), colour)
    return coloured(taper((0, 0, -0.1), (2.6, 1.7), (0, 0, 1.4), (3.6, 1.8), "panel"), colour)


_THINGS: tuple[tuple[Callable[[Random], Mesh], float], ...] = (
    (_sign, 0.26), (_signal, 0.08), (_bollard, 0.22), (_bin, 0.14),
    (_hydrant, 0.08), (_cabinet, 0.08), (_bench, 0.07), (_column, 0.07),
)  # fmt: skip


def draw_thing(rng: Random) -> Mesh:
    """Return a small thing of the pavement: sign, signal, bollard, bin, hydrant, cabinet, bench or column."""
    make = _THINGS[int(rng.choice(len(_THINGS), p=[share for _, share in _THINGS]))][0]
    return make(rng)
