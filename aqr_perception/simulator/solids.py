# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Meshes with a material and a colour for every face."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray

MATERIALS: tuple[str, ...] = (
    "paint", "glass", "rubber", "metal", "light", "skin", "cloth", "trousers", "plastic", "white",
    "asphalt", "grass", "pavement", "wall", "bark", "leaves",
)  # fmt: skip
"""Materials by index; the first ten belong to objects, the others to the scenery."""


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh.

    Attributes:
        vertices: (N, 3) float32, metres.
        faces: (M, 3) int32, counter-clockwise seen from outside.
        materials: (M,) int64, indices into `MATERIALS`.
        colours: (M, 3) float32, BGR in 0..1.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    materials: NDArray[np.int64]
    colours: NDArray[np.float32]

    def moved(self, transform: NDArray[np.float64]) -> "Mesh":
        """Return the mesh moved by a (4, 4) affine transform."""
        vertices = self.vertices @ transform[:3, :3].T + transform[:3, 3]
        return Mesh(vertices.astype(np.float32), self.faces, self.materials, self.colours)

    def scaled(self, size: ArrayLike) -> "Mesh":
        """Return the mesh scaled by three factors, along x, y and z."""
        vertices = self.vertices * np.asarray(size, np.float32)
        return Mesh(vertices, self.faces, self.materials, self.colours)

    def painted(self, colours: dict[str, ArrayLike]) -> "Mesh":
        """Return the mesh with other BGR colours for some materials."""
        changed = self.colours.copy()
        for material, colour in colours.items():
            changed[self.materials == MATERIALS.index(material)] = colour
        return Mesh(self.vertices, self.faces, self.materials, changed)


_COLOURS: dict[str, tuple[float, float, float]] = {  # BGR
    "paint": (0.35, 0.35, 0.35), "glass": (0.16, 0.13, 0.11), "rubber": (0.06, 0.06, 0.06), "metal": (0.45, 0.45, 0.46),
    "light": (0.75, 0.9, 0.95), "skin": (0.45, 0.58, 0.75), "cloth": (0.4, 0.3, 0.25), "trousers": (0.25, 0.18, 0.15),
    "plastic": (0.05, 0.3, 0.9), "white": (0.85, 0.85, 0.85), "asphalt": (0.27, 0.26, 0.25), "grass": (0.2, 0.4, 0.28),
    "pavement": (0.45, 0.47, 0.48), "wall": (0.45, 0.5, 0.58), "bark": (0.16, 0.22, 0.3), "leaves": (0.14, 0.32, 0.18),
}  # fmt: skip


def _mesh(shape: trimesh.Trimesh, material: str) -> Mesh:
    faces = np.asarray(shape.faces, np.int32)
    index = MATERIALS.index(material)
    colours = np.tile(np.array(_COLOURS[material], np.float32), (len(faces), 1))
    return Mesh(np.asarray(shape.vertices, np.float32), faces, np.full(len(faces), index), colours)


def box(centre: ArrayLike, size: ArrayLike, material: str) -> Mesh:
    """Return an axis-aligned cuboid."""
    return _mesh(trimesh.creation.box(np.asarray(size, float), _translation(centre)), material)


def frustum(bottom: tuple[ArrayLike, ArrayLike], top: tuple[ArrayLike, ArrayLike], material: str) -> Mesh:
    """Return a cuboid with a smaller or shifted upper face; bottom and top are each a centre (3) and a size (2)."""
    unit = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    corners = [np.c_[np.asarray(c)[:2] + unit * np.asarray(s), np.full(4, np.asarray(c)[2])] for c, s in (bottom, top)]
    return _mesh(trimesh.convex.convex_hull(np.concatenate(corners)), material)


def cylinder(start: ArrayLike, end: ArrayLike, radius: float, material: str, sections: int = 10) -> Mesh:
    """Return a cylinder with an axis between two points."""
    return _mesh(trimesh.creation.cylinder(radius, segment=np.array([start, end], float), sections=sections), material)


def cone(base: ArrayLike, radius: float, height: float, material: str, sections: int = 10) -> Mesh:
    """Return an upright cone with its base at a point."""
    shape = trimesh.creation.cone(radius, height, sections=sections, transform=_translation(base))
    return _mesh(shape, material)


def ellipsoid(centre: ArrayLike, radii: ArrayLike, material: str) -> Mesh:
    """Return an ellipsoid of 80 triangles."""
    shape = trimesh.creation.icosphere(subdivisions=1)
    shape.apply_scale(np.asarray(radii, float))
    shape.apply_translation(np.asarray(centre, float))
    return _mesh(shape, material)


def merged(meshes: Iterable[Mesh]) -> Mesh:
    """Return several meshes as one; an empty mesh for none."""
    parts = list(meshes)
    if not parts:
        empty = np.zeros((0, 3))
        return Mesh(empty.astype(np.float32), empty.astype(np.int32), np.zeros(0, np.int64), empty.astype(np.float32))
    offsets = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    return Mesh(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + offset for part, offset in zip(parts, offsets, strict=True)]).astype(np.int32),
        np.concatenate([part.materials for part in parts]),
        np.concatenate([part.colours for part in parts]),
    )


def _translation(offset: ArrayLike) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    return matrix
