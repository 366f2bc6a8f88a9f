# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Ray casting with Embree into the scenery and the objects of a scene."""

from typing import Any, NamedTuple

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from aqr_perception.simulator.scene import Scene
from aqr_perception.simulator.solids import Mesh, merged

SCENERY = -1
"""Owner of surfaces that belong to no object."""

_REACH = 100.0
"""Largest distance in metres of an object from the vehicle; farther objects are left out."""


class Hits(NamedTuple):
    """First hits of N rays.

    Attributes:
        distance: (N,) float32 in units of the direction's length; infinite without a hit.
        normal: (N, 3) float32 unit vectors towards the ray's origin, world frame.
        material: (N,) int64, index into `solids.MATERIALS`; -1 without a hit.
        colour: (N, 3) float32 BGR of the face.
        owner: (N,) int64, index of the scene's actor; `SCENERY` for none.
    """

    distance: NDArray[np.float32]
    normal: NDArray[np.float32]
    material: NDArray[np.int64]
    colour: NDArray[np.float32]
    owner: NDArray[np.int64]


class _Solid:
    """A mesh as a target of rays."""

    def __init__(self, mesh: Mesh, owner: NDArray[np.int64]) -> None:
        # The last entries belong to face -1, the face of rays without a hit.
        corners = mesh.vertices[mesh.faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        self.normal = np.concatenate([normal, np.zeros((1, 3))]).astype(np.float32)
        self.material = np.append(mesh.materials, -1)
        self.colour = np.concatenate([mesh.colours, np.zeros((1, 3), np.float32)])
        self.owner = np.append(owner, SCENERY)
        self._scene = EmbreeScene()
        self._empty = not len(mesh.faces)
        if not self._empty:
            TriangleMesh(self._scene, mesh.vertices, mesh.faces)

    def cast(
        self, origins: NDArray[np.float32], directions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return distances (N,) and faces (N,); infinite and -1 without a hit."""
        if self._empty:
            return np.full(len(origins), np.inf, np.float32), np.full(len(origins), -1, np.int32)
        hits = self._scene.run(origins, directions, query="INTERSECT", output=True)
        return np.where(hits["primID"] < 0, np.float32(np.inf), hits["tfar"]), hits["primID"]


class RayCaster:
    """Ray caster of a scene. It prepares the scenery once, and the objects for each new time."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._scenery = _Solid(scene.scenery, np.full(len(scene.scenery.faces), SCENERY))
        self._time = np.nan
        self._objects = _Solid(merged([]), np.zeros(0, np.int64))

    def cast(self, time: float, origins: NDArray[Any], directions: NDArray[Any]) -> Hits:
        """Return the first hits of rays at a time.

        Args:
            origins: (N, 3) or (3,), world frame, metres.
            directions: (N, 3), world frame.
        """
        self._move_objects(time)
        directions = np.ascontiguousarray(directions, np.float32)
        origins = np.ascontiguousarray(np.broadcast_to(np.asarray(origins, np.float32), directions.shape))
        distance, face = self._scenery.cast(origins, directions)
        object_distance, object_face = self._objects.cast(origins, directions)
        nearer = object_distance < distance
        normal = np.where(nearer[:, None], self._objects.normal[object_face], self._scenery.normal[face])
        against = np.einsum("ij,ij->i", normal, directions) > 0
        normal[against] *= -1
        return Hits(
            np.where(nearer, object_distance, distance),
            normal,
            np.where(nearer, self._objects.material[object_face], self._scenery.material[face]),
            np.where(nearer[:, None], self._objects.colour[object_face], self._scenery.colour[face]),
            np.where(nearer, self._objects.owner[object_face], SCENERY),
        )

    def shadowed(self, time: float, points: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return a mask (N,) of the (N, 3) world points in shadow."""
        self._move_objects(time)
        directions = np.ascontiguousarray(np.broadcast_to(np.float32(self._scene.lighting.sun), points.shape))
        origins = np.ascontiguousarray(points, np.float32) + np.float32(0.02) * directions
        return np.isfinite(self._scenery.cast(origins, directions)[0]) | np.isfinite(
            self._objects.cast(origins, directions)[0]
        )

    def _move_objects(self, time: float) -> None:
        if time == self._time:
            return
        scene = self._scene
        centre = scene.vehicle_to_world(time)[:2, 3]
        parts, owners = [], []
        for index, actor in enumerate(scene.actors):
            pose = actor.pose(scene.road, time)
            if np.hypot(*(pose[:2, 3] - centre)) < _REACH:
                parts.append(actor.mesh.moved(pose))
                owners.append(np.full(len(actor.mesh.faces), index))
        self._objects = _Solid(merged(parts), np.concatenate(owners) if owners else np.zeros(0, np.int64))
        self._time = time
