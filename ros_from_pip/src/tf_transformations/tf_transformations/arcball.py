"""A virtual trackball: turning things with the mouse (Shoemake, Arcball, Graphics Interface 1992)."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tf_transformations.rotations import (
    quaternion_from_matrix,
    quaternion_matrix,
    quaternion_multiply,
    quaternion_slerp,
)
from tf_transformations.vectors import _EPS, unit_vector, vector_norm

Vector = NDArray[np.float64]


class Arcball:
    """A ball on the screen; dragging a point of it turns it. Points are window coordinates, y downwards."""

    def __init__(self, initial: ArrayLike | None = None) -> None:
        """Start with `initial`, a quaternion or a matrix (4, 4). ValueError for anything else."""
        self._axis: Vector | None = None
        self._axes: list[Vector] | None = None
        self._radius = 1.0
        self._center = [0.0, 0.0]
        self._vdown = np.array([0.0, 0.0, 1.0])
        self._constrain = False
        if initial is None:
            self._qdown = np.array([0.0, 0.0, 0.0, 1.0])
        else:
            initial = np.array(initial, dtype=np.float64)
            if initial.shape == (4, 4):
                self._qdown = quaternion_from_matrix(initial)
            elif initial.shape == (4,):
                self._qdown = unit_vector(initial)
            else:
                raise ValueError(f"initial has shape {initial.shape}: give a quaternion (4,) or a matrix (4, 4)")
        self._qnow = self._qpre = self._qdown

    def place(self, center: Sequence[float], radius: float) -> None:
        """Put the ball at `center`, with this radius, in window coordinates."""
        self._radius = float(radius)
        self._center[:] = center[0], center[1]

    def setaxes(self, *axes: ArrayLike) -> None:
        """Set the axes that rotations are constrained to."""
        self._axes = [unit_vector(axis) for axis in axes]

    def setconstrain(self, constrain: bool) -> None:
        """Switch the constraint on (with True) or off."""
        self._constrain = constrain is True

    def getconstrain(self) -> bool:
        """Return whether the constraint is on."""
        return self._constrain

    def down(self, point: Sequence[float]) -> None:
        """Begin to drag at `point`; under the constraint, choose the axis."""
        self._vdown = arcball_map_to_sphere(point, self._center, self._radius)
        self._qdown = self._qpre = self._qnow
        self._axis = None
        if self._constrain and self._axes is not None:
            self._axis = arcball_nearest_axis(self._vdown, self._axes)
            self._vdown = arcball_constrain_to_axis(self._vdown, self._axis)

    def drag(self, point: Sequence[float]) -> None:
        """Turn the ball so that what was at the point of `down` is now at `point`."""
        vnow = arcball_map_to_sphere(point, self._center, self._radius)
        if self._axis is not None:
            vnow = arcball_constrain_to_axis(vnow, self._axis)
        self._qpre = self._qnow
        axis = np.cross(self._vdown, vnow)
        if np.dot(axis, axis) < _EPS:
            self._qnow = self._qdown
        else:
            self._qnow = quaternion_multiply([*axis, np.dot(self._vdown, vnow)], self._qdown)

    def next(self, acceleration: float = 0.0) -> None:
        """Turn on in the direction of the last drag."""
        further = quaternion_slerp(self._qpre, self._qnow, 2.0 + acceleration, False)
        self._qpre, self._qnow = self._qnow, further

    def matrix(self) -> NDArray[np.float64]:
        """Return the rotation (4, 4) of the ball."""
        return quaternion_matrix(self._qnow)


def arcball_map_to_sphere(point: Sequence[float], center: Sequence[float], radius: float) -> Vector:
    """Return the point (3,) of the unit sphere above a window point; beside the ball, that of its outline."""
    x = (point[0] - center[0]) / radius
    y = (center[1] - point[1]) / radius
    squared = x * x + y * y
    if squared > 1.0:
        return np.array([x, y, 0.0]) / math.sqrt(squared)
    return np.array([x, y, math.sqrt(1.0 - squared)])


def arcball_constrain_to_axis(point: ArrayLike, axis: ArrayLike) -> Vector:
    """Return the direction of `point` in the plane across `axis`, on the viewer's side."""
    point = np.asarray(point, dtype=np.float64)
    axis = np.asarray(axis, dtype=np.float64)
    across = point - axis * np.dot(axis, point)
    length = vector_norm(across)
    if length > _EPS:
        return (-across if across[2] < 0.0 else across) / length
    if axis[2] == 1.0:
        return np.array([1.0, 0.0, 0.0])
    return unit_vector([-axis[1], axis[0], 0.0])


def arcball_nearest_axis(point: ArrayLike, axes: Sequence[Vector]) -> Vector | None:
    """Return the axis whose great circle passes nearest to `point`; None where there are no axes."""
    point = np.asarray(point, dtype=np.float64)
    return max(axes, key=lambda axis: np.dot(arcball_constrain_to_axis(point, axis), point), default=None)
