# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Interpolation and composition of the hops of a path to one rigid transform."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from transforms3d.quaternions import qconjugate, qmult

from tf2_py.frame_tree import Hop
from tf2_py.time_cache import Link


class RigidTransform(NamedTuple):
    """Carries coordinates from a source frame to a target frame."""

    rotation: tuple[float, float, float, float]
    """Unit quaternion (x, y, z, w)."""
    translation: tuple[float, float, float]
    """Position of the source frame's origin in the target frame, metres."""


IDENTITY = RigidTransform((0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0))


def interpolate(links: Sequence[Link]) -> tuple[Rotation, NDArray[np.float64]]:
    """Poses of the links' child frames in their parents: N rotations and (N, 3) translations in metres.

    Translations are interpolated linearly and rotations spherically (slerp) between the two samples. One call handles
    all links, because a scipy call costs the same for one rotation as for a dozen.
    """
    rotations = Rotation.from_quat([link.before.rotation for link in links])
    translations = np.array([link.before.translation for link in links])
    fractions = np.array([[link.fraction] for link in links])
    if fractions.any():
        to_after = rotations.inv() * Rotation.from_quat([link.after.rotation for link in links])
        rotations = rotations * Rotation.from_rotvec(fractions * to_after.as_rotvec())
        translations = translations + fractions * (np.array([link.after.translation for link in links]) - translations)
    return rotations, translations


def compose(hops: Sequence[Hop]) -> RigidTransform:
    """The transform over all hops, first hop applied first."""
    if not hops:
        return IDENTITY
    rotations, translations = interpolate([hop.link for hop in hops])
    matrices = rotations.as_matrix()
    quaternions = rotations.as_quat()[:, [3, 0, 1, 2]].tolist()  # transforms3d puts w first
    position = np.zeros(3)
    orientation = np.array([1.0, 0.0, 0.0, 0.0])
    for hop, matrix, quaternion, translation in zip(hops, matrices, quaternions, translations, strict=True):
        if hop.inverted:
            position = matrix.T @ (position - translation)
            orientation = qmult(qconjugate(quaternion), orientation)
        else:
            position = matrix @ position + translation
            orientation = qmult(quaternion, orientation)
    w, x, y, z = orientation.tolist()
    along_x, along_y, along_z = position.tolist()
    sign = -1.0 if _leading(x, y, z, w) < 0.0 else 1.0
    return RigidTransform((sign * x, sign * y, sign * z, sign * w), (along_x, along_y, along_z))


def _leading(x: float, y: float, z: float, w: float) -> float:
    """The component that tf2 makes positive; it selects one of the two quaternions of a rotation.

    tf2's results pass through a rotation matrix; its trace, 4 w^2 - 1, decides whether this component is w.
    """
    return w if w * w > 0.25 else max((x, y, z), key=abs)
