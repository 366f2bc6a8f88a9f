# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Ray tracing into a street: static surfaces once, moving objects for each new time."""

from typing import Any, NamedTuple

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from aqr_perception.simulator.raycasting import SCENERY
from aqr_perception.simulator.solids import Mesh, merged
from aqr_perception.simulator.street.street_scene import StreetScene

_Floats = NDArray[np.float32]
_REACH = 110.0
"""Largest distance in metres of a moving object from the vehicle; farther objects are left out."""


class SurfaceHits(NamedTuple):
    """First hits of N rays.

    Attributes:
        distance: (N,) float32, metres; infinite without a hit.
        normal: (N, 3) float32 unit vectors towards the ray's origin, world frame.
        material: (N,) int64, index into `materials.NAMES`; 0 without a hit.
        colour: (N, 3) float32 BGR of the face.
        owner: (N,) int64, index of the scene's actor; `SCENERY` for none.
    """

    distance: _Floats
    normal: _Floats
    material: NDArray[np.int64]
    colour: _Floats
    owner: NDArray[np.int64]


class _Target:
    def __init__(self, mesh: Mesh, owner: NDArray[np.int64]) -> None:
        first, second, third = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
        (ax, ay, az), (bx, by, bz) = (second - first).T, (third - first).T
        normal = np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=1)
        normal /= np.maximum(np.sqrt(np.einsum("ij,ij->i", normal, normal)), 1e-12)[:, None]
        self.normal, self.material, self.colour, self.owner = normal, mesh.materials, mesh.colours, owner
        self.empty = not len(mesh.faces)
        self._scene = EmbreeScene()
        if not self.empty:
            TriangleMesh(self._scene, mesh.vertices, mesh.faces)

    def cast(self, origins: _Floats, directions: _Floats) -> tuple[_Floats, NDArray[np.int32]]:
        hits = self._scene.run(origins, directions, query="INTERSECT", output=True)
        return np.where(hits["primID"] < 0, np.float32(np.inf), hits["tfar"]), hits["primID"]

    def blocks(self, origins: _Floats, directions: _Floats) -> NDArray[np.bool_]:
        """Return whether the rays hit anything."""
        return np.asarray(self._scene.run(origins, directions, query="OCCLUDED") >= 0)


class StreetTracer:
    """Ray tracer of a street."""

    def __init__(self, scene: StreetScene) -> None:
        self._scene = scene
        fixed = [index for index, actor in enumerate(scene.actors) if not actor.moving]
        self._fixed = self._target(fixed, 0.0, scene.scenery)
        self._moving_indices = [index for index, actor in enumerate(scene.actors) if actor.moving]
        self._moving, self._time = self._target([], 0.0), np.nan

    def cast(self, time: float, origins: NDArray[Any], directions: NDArray[Any]) -> SurfaceHits:
        """Return the first hits of rays, with the objects where they are at a time.

        Args:
            origins: (N, 3) or (3,), world frame, metres.
            directions: (N, 3) unit vectors, world frame.
        """
        self._move(time)
        rays = np.ascontiguousarray(directions, np.float32)
        starts = np.ascontiguousarray(np.broadcast_to(np.asarray(origins, np.float32), rays.shape))
        distance, face = self._fixed.cast(starts, rays)
        normal, material = self._fixed.normal[face], self._fixed.material[face]
        colour, owner = self._fixed.colour[face], self._fixed.owner[face]
        if not self._moving.empty:
            nearer_distance, moving_face = self._moving.cast(starts, rays)
            nearer = np.flatnonzero(nearer_distance < distance)
            at = moving_face[nearer]
            distance[nearer], normal[nearer] = nearer_distance[nearer], self._moving.normal[at]
            material[nearer], colour[nearer] = self._moving.material[at], self._moving.colour[at]
            owner[nearer] = self._moving.owner[at]
        missed = ~np.isfinite(distance)
        owner[missed], material[missed] = SCENERY, 0
        normal[np.einsum("ij,ij->i", normal, rays) > 0] *= -1
        return SurfaceHits(distance, normal, material, colour, owner)

    def shadowed(self, time: float, points: _Floats, normals: _Floats, towards: NDArray[Any]) -> NDArray[np.bool_]:
        """Return a mask (N,) of the (N, 3) points from which something lies in a direction (3,)."""
        self._move(time)
        rays = np.ascontiguousarray(np.broadcast_to(np.float32(towards), points.shape))
        starts = np.ascontiguousarray(points + np.float32(0.02) * normals)
        blocked = self._fixed.blocks(starts, rays)
        if not self._moving.empty:
            blocked |= self._moving.blocks(starts, rays)
        return blocked

    def _target(self, indices: list[int], time: float, *others: Mesh) -> _Target:
        parts, owners = list(others), [np.full(len(mesh.faces), SCENERY) for mesh in others]
        for index in indices:
            mesh = self._scene.actors[index].mesh_at(time)
            parts.append(mesh.moved(self._scene.pose_of(index, time)))
            owners.append(np.full(len(mesh.faces), index))
        return _Target(merged(parts), np.concatenate(owners) if owners else np.zeros(0, np.int64))

    def _move(self, time: float) -> None:
        if time == self._time:
            return
        centre = self._scene.vehicle_to_world(time)[:2, 3]
        near = [
            index
            for index in self._moving_indices
            if np.hypot(*(self._scene.pose_of(index, time)[:2, 3] - centre)) < _REACH
        ]
        self._moving, self._time = self._target(near, time), time
