# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Building blocks of meshes: cuboids, prisms, tubes and lumps, made from cached unit shapes."""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray

from aqr_perception.simulator.solids import Mesh
from aqr_perception.simulator.street.materials import COLOURS, INDEX

_Array = NDArray[np.float32]
_CUBE_FACES = np.array(
    [(0, 2, 1), (0, 3, 2), (4, 5, 6), (4, 6, 7), (0, 1, 5), (0, 5, 4), (1, 2, 6), (1, 6, 5), (2, 3, 7), (2, 7, 6),
     (3, 0, 4), (3, 4, 7)],
    np.int32,
)  # fmt: skip
_SQUARE = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)], np.float32)


def surface(vertices: ArrayLike, faces: ArrayLike, material: str) -> Mesh:
    """Return a mesh of one material in its own colour."""
    triangles = np.asarray(faces, np.int32)
    index = INDEX[material]
    count = len(triangles)
    return Mesh(
        np.asarray(vertices, np.float32), triangles, np.full(count, index), np.repeat(COLOURS[index][None], count, 0)
    )


def cuboid(centre: ArrayLike, size: ArrayLike, material: str) -> Mesh:
    """Return an axis-aligned cuboid."""
    x, y, z = np.asarray(centre, np.float32)
    length, width, height = np.asarray(size, np.float32)
    return taper((x, y, z - height / 2), (length, width), (x, y, z + height / 2), (length, width), material)


def taper(bottom: ArrayLike, bottom_size: ArrayLike, top: ArrayLike, top_size: ArrayLike, material: str) -> Mesh:
    """Return a cuboid whose upper face may be smaller and shifted; centres (3) and sizes along x and y (2)."""
    vertices = np.empty((8, 3), np.float32)
    for row, (centre, size) in enumerate(((bottom, bottom_size), (top, top_size))):
        middle = np.asarray(centre, np.float32)
        vertices[4 * row : 4 * row + 4, :2] = middle[:2] + _SQUARE * np.asarray(size, np.float32)
        vertices[4 * row : 4 * row + 4, 2] = middle[2]
    return surface(vertices, _CUBE_FACES, material)


def prism(profile: Sequence[tuple[float, float]], half_widths: Sequence[float], material: str) -> Mesh:
    """Return a side profile (x, z), seen from any of its corners' fan, extended across y.

    Args:
        profile: corners in order; each can be seen from the first.
        half_widths: half the width at each corner.
    """
    corners, half = np.asarray(profile, np.float32), np.asarray(half_widths, np.float32)
    count = len(corners)
    left, right = np.c_[corners[:, 0], half, corners[:, 1]], np.c_[corners[:, 0], -half, corners[:, 1]]
    index = np.arange(count)
    after = (index + 1) % count
    fan = np.c_[np.zeros(count - 2, int), index[1:-1], index[2:]]
    faces = np.concatenate(
        [fan, fan[:, ::-1] + count, np.c_[index, index + count, after], np.c_[after, index + count, after + count]]
    )
    return surface(np.concatenate([left, right]), faces, material)


@cache
def _unit_tube(sections: int) -> tuple[_Array, NDArray[np.int32]]:
    angle = np.linspace(0, 2 * np.pi, sections, endpoint=False)
    ring = np.c_[np.cos(angle), np.sin(angle)]
    vertices = np.concatenate([np.c_[ring, np.zeros(sections)], np.c_[ring, np.ones(sections)], [(0, 0, 0), (0, 0, 1)]])
    here = np.arange(sections)
    after = (here + 1) % sections
    low, high = np.full(sections, 2 * sections), np.full(sections, 2 * sections + 1)
    faces = [
        np.c_[here, after, after + sections],
        np.c_[here, after + sections, here + sections],
        np.c_[low, after, here],
        np.c_[high, here + sections, after + sections],
    ]
    return vertices.astype(np.float32), np.concatenate(faces).astype(np.int32)


def tube(
    start: ArrayLike, end: ArrayLike, radius: float, material: str, sections: int = 8, end_radius: float | None = None
) -> Mesh:
    """Return a cylinder or truncated cone between two points."""
    first, last = np.asarray(start, np.float64), np.asarray(end, np.float64)
    axis = last - first
    other = np.array([0.0, 1.0, 0.0]) if abs(axis[1]) < 0.9 * np.linalg.norm(axis) else np.array([1.0, 0.0, 0.0])
    side = np.cross(other, axis)
    side /= max(float(np.linalg.norm(side)), 1e-9)
    up = np.cross(axis, side)
    up /= max(float(np.linalg.norm(up)), 1e-9)
    vertices, faces = _unit_tube(sections)
    ends = radius if end_radius is None else end_radius
    width = radius + (ends - radius) * vertices[:, 2:]
    placed = first + width * (vertices[:, :1] * side + vertices[:, 1:2] * up) + vertices[:, 2:] * axis
    return surface(placed, faces, material)


@cache
def _unit_ball(subdivisions: int) -> tuple[_Array, NDArray[np.int32]]:
    ball = trimesh.creation.icosphere(subdivisions=subdivisions)
    return np.asarray(ball.vertices, np.float32), np.asarray(ball.faces, np.int32)


def lump(
    centre: ArrayLike, radii: ArrayLike, material: str, rng: np.random.Generator | None = None, rough: float = 0.0
) -> Mesh:
    """Return an ellipsoid; with `rough`, its corners move in and out by this share."""
    vertices, faces = _unit_ball(1)
    if rng is not None and rough:
        vertices = vertices * rng.uniform(1 - rough, 1.0, (len(vertices), 1)).astype(np.float32)
    return surface(vertices * np.asarray(radii, np.float32) + np.asarray(centre, np.float32), faces, material)


def painted(mesh: Mesh, colours: Mapping[str, ArrayLike]) -> Mesh:
    """Return the mesh with other BGR colours for some materials."""
    changed = mesh.colours.copy()
    for material, colour in colours.items():
        changed[mesh.materials == INDEX[material]] = colour
    return Mesh(mesh.vertices, mesh.faces, mesh.materials, changed)


def coloured(mesh: Mesh, colour: ArrayLike) -> Mesh:
    """Return the mesh in one BGR colour."""
    return Mesh(
        mesh.vertices,
        mesh.faces,
        mesh.materials,
        np.repeat(np.asarray(colour, np.float32)[None], len(mesh.faces), 0),
    )


def unit(mesh: Mesh) -> Mesh:
    """Return the mesh stretched to the box -0.5..0.5."""
    lower, upper = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    return Mesh((mesh.vertices - lower) / (upper - lower) - 0.5, mesh.faces, mesh.materials, mesh.colours)
