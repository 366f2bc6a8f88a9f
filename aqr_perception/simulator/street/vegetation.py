# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Trees, bushes and hedges in cached variants."""

from functools import cache

import numpy as np

from aqr_perception.simulator.solids import Mesh, merged
from aqr_perception.simulator.street.forms import coloured, cuboid, lump, tube

_VARIANTS = 12


def draw_tree(rng: np.random.Generator) -> Mesh:
    """Return a tree on the origin, 3 to 10 m high; in one of eight cases without leaves."""
    size = rng.uniform(0.7, 1.35)
    return _shaded(_tree(int(rng.integers(_VARIANTS))).scaled((size, size, size * rng.uniform(0.85, 1.2))), rng)


def draw_bush(rng: np.random.Generator) -> Mesh:
    """Return a bush on the origin, up to 1.8 m high."""
    return _shaded(_bush(int(rng.integers(_VARIANTS))).scaled(rng.uniform(0.6, 1.3, 3)), rng)


def draw_hedge(rng: np.random.Generator, length: float) -> Mesh:
    """Return a hedge along x, some of them as large as a car."""
    high, deep = rng.uniform(0.7, 1.9), rng.uniform(0.6, 1.1)
    lumps = [
        lump((x, 0, high * 0.9), (0.9, deep / 2, 0.25), "leaves", rng, 0.3)
        for x in np.arange(-length / 2 + 0.8, length / 2 - 0.5, 1.4)
    ]
    return _shaded(merged([cuboid((0, 0, high * 0.47), (length, deep, high * 0.94), "leaves"), *lumps]), rng)


def _shaded(mesh: Mesh, rng: np.random.Generator) -> Mesh:
    tint = rng.uniform(0.6, 1.5) * np.array((rng.uniform(0.7, 1.2), 1.0, rng.uniform(0.7, 1.6)), np.float32)
    return Mesh(mesh.vertices, mesh.faces, mesh.materials, np.clip(mesh.colours * tint.astype(np.float32), 0, 1))


@cache
def _tree(number: int) -> Mesh:
    rng = np.random.default_rng([0x7EE, number])
    if number % 4 == 3:  # conifer
        high = rng.uniform(5, 8)
        layers = [
            tube((0, 0, z), (0, 0, z + high * 0.32), 1.7 * (1.05 - z / high), "leaves", 9, 0.1)
            for z in np.linspace(0.9, high * 0.72, 4)
        ]
        return merged([tube((0, 0, 0), (0, 0, 1.2), 0.16, "bark", 6), *layers])
    trunk, crown = rng.uniform(1.9, 3.0), rng.uniform(1.3, 2.2)
    parts = [tube((0, 0, 0), (rng.normal(0, 0.1), rng.normal(0, 0.1), trunk), rng.uniform(0.12, 0.22), "bark", 7, 0.1)]
    bare = number == 2
    for _ in range(9 if bare else 5):
        at = np.array([*rng.normal(0, crown * 0.42, 2), trunk + crown * rng.uniform(0.3, 1.5)])
        parts.append(tube((0, 0, trunk * 0.85), at, 0.08, "bark", 4, 0.03))
        if bare:
            parts += [tube(at, at + rng.normal(0, 0.7, 3) + (0, 0, 0.4), 0.03, "bark", 3, 0.01) for _ in range(4)]
        else:
            radii = crown * rng.uniform(0.5, 0.8, 3)
            shade = np.array((0.03, 0.11, 0.06), np.float32) * rng.uniform(0.7, 1.3)
            parts.append(coloured(lump(at, radii, "leaves", rng, 0.35), shade))
    return merged(parts)


@cache
def _bush(number: int) -> Mesh:
    rng = np.random.default_rng([0xB54, number])
    return merged(
        [
            lump((*rng.normal(0, 0.35, 2), rng.uniform(0.3, 0.7)), rng.uniform(0.35, 0.7, 3), "leaves", rng, 0.35)
            for _ in range(4)
        ]
    )
