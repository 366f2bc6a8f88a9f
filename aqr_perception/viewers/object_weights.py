# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Weights of objects over time: detections joined to objects by the tracker."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import Detections
from aqr_perception.tracking.tracker import Tracker
from aqr_perception.viewers.shown_frame import ObjectWeights


class ObjectFollower:
    """Identities of the detected objects, for viewers of recordings without tracks."""

    def __init__(self) -> None:
        self._tracker = Tracker()

    def follow(
        self, stamp_ns: int, detections: Detections, to_fixed: NDArray[np.float64] | None
    ) -> Mapping[int, ObjectWeights]:
        """Return the weights of the objects that a frame detects, by identity.

        Without the vehicle's motion there are no objects: its own motion would look like theirs.

        Args:
            to_fixed: (4, 4), frame of the boxes -> a frame fixed to the ground; None if it is unknown.
        """
        if to_fixed is None:
            return {}
        tracks = self._tracker.update(stamp_ns, detections, to_fixed)
        return {
            int(tracks.ids[index]): ObjectWeights(
                tracks.classes[tracks.labels[index]], float(tracks.weights[index, 0]), float(tracks.weights[index, 1])
            )
            for index in np.flatnonzero(~tracks.predicted)
        }
