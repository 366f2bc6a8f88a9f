# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The tracks of one frame, and the detections they come from, in a fixed frame."""

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import Detections
from aqr_perception.geometry import transform_points
from aqr_perception.tracking.motion import Floats


@dataclass(frozen=True)
class Observations:
    """Detections in a fixed frame.

    Attributes:
        boxes: (N, 9) as `Detections.boxes`, in the fixed frame; NaN velocities are unknown.
        scores, labels: (N,) as in `Detections`.
        weights: (N, 2) weight of the LiDAR and of the cameras.
        places: (N,) indices into the detections.
    """

    boxes: Floats
    scores: Floats
    labels: NDArray[np.int64]
    weights: Floats
    places: NDArray[np.intp]


def observed(detections: Detections, to_fixed: Floats) -> Observations:
    """Return detections in the fixed frame, in an order that does not depend on theirs; not finite ones are left out.

    Args:
        to_fixed: (4, 4), model frame -> fixed frame.
    """
    boxes, scores = detections.boxes.astype(np.float64), detections.scores.astype(np.float64)
    weights = np.stack([detections.lidar_weight, detections.camera_weight], axis=1).astype(np.float64)
    order = np.lexsort((*weights.T, *boxes.T[::-1], detections.labels, -scores))
    order = order[np.isfinite(boxes[order, :7]).all(axis=1) & np.isfinite(scores[order])]
    boxes = moved(boxes[order], to_fixed)
    return Observations(boxes, scores[order], detections.labels[order], weights[order], order)


def moved(boxes: Floats, transform: Floats) -> Floats:
    """Return (N, 9) boxes after a rigid (4, 4) transform; their headings and velocities stay in the x, y plane."""
    rotation = transform[:3, :3]
    result: Floats = boxes.copy()
    result[:, :3] = transform_points(transform, boxes)
    heading = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])], axis=1) @ rotation[:2, :2].T
    result[:, 6] = np.arctan2(heading[:, 1], heading[:, 0])
    result[:, 7:9] = boxes[:, 7:9] @ rotation[:2, :2].T
    return result


@dataclass(frozen=True)
class Tracks:
    """Tracked objects at the time of one frame, in a fixed frame, in the order of their ids.

    Attributes:
        ids: (N,) identities from 1; never given twice by one tracker.
        boxes: (N, 9) as `Detections.boxes`, in the fixed frame, with filtered position and velocity.
        scores: (N,) in 0..1; falls while the object is missed.
        labels: (N,) indices into `classes`.
        ages: (N,) seconds since the first detection.
        hits: (N,) number of frames with a detection.
        missed: (N,) number of frames since the last detection; 0: detected in this frame.
        unseen: (N,) seconds since the last detection.
        velocity_variance: (N,) in m^2/s^2, of the velocity along any axis.
        weights: (N, 2) weight of the LiDAR and of the cameras, smoothed over the track.
        classes: class names.
    """

    ids: NDArray[np.int64]
    boxes: Floats
    scores: Floats
    labels: NDArray[np.int64]
    ages: Floats
    hits: NDArray[np.int64]
    missed: NDArray[np.int64]
    unseen: Floats
    velocity_variance: Floats
    weights: Floats
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """(N,) whether the frame has no detection of the object, so that its box is a prediction."""
        return self.missed > 0

    def keep(self, selection: NDArray[np.bool_] | NDArray[np.intp]) -> "Tracks":
        """Return the tracks that a mask or an array of indices selects."""
        names = [field.name for field in fields(self) if field.name != "classes"]
        return replace(self, **{name: getattr(self, name)[selection] for name in names})
