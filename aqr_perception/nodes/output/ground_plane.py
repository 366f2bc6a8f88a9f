# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Placement of the bird's-eye-view plane on the ground."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class GroundPlane(NamedTuple):
    """Where the ground is.

    Attributes:
        frame_id: TF frame whose plane z = 0 is the ground.
        to_ground: (4, 4), model frame -> that frame.
    """

    frame_id: str
    to_ground: NDArray[np.float64]

    def placement(self) -> NDArray[np.float64]:
        """Return the (4, 4) placement of the model frame's plane z = 0 on the ground: a turn about z and a shift.

        The model frame's origin is projected along the model frame's z axis, as cells of a bird's-eye-view map are
        columns along it.

        Raises:
            ValueError: the model frame's z axis does not point away from the ground.
        """
        rotation, origin = self.to_ground[:3, :3], self.to_ground[:3, 3]
        up, forward = rotation[:, 2], rotation[:, 0]
        if up[2] < 0.1:
            raise ValueError(f"the model frame's z axis points along {np.round(up, 2).tolist()} of {self.frame_id}")
        yaw = np.arctan2(forward[1], forward[0])
        placed = np.eye(4)
        placed[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
        placed[:2, 3] = (origin - up * (origin[2] / up[2]))[:2]
        return placed
