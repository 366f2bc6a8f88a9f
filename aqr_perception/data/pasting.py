# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Objects of other frames pasted into a point cloud, so that rare classes are seen more often.

SECOND (Yan et al., Sensors 2018, section 3.2.3) pastes objects from a database made beforehand. Here they come from
frames drawn at random: nothing has to be made or kept, and a resumed training sees the same objects.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.corruption.lidar_corruption import moved_with_object, points_in_box
from aqr_perception.frame import GroundTruth, LabelledFrame

_ENOUGH = 4
"""Number of objects of a class in a frame from which on no more are pasted."""

_LEAST_POINTS = 5
"""Fewest points of the newest sweep on an object that is pasted."""

_MARGIN = 0.1
"""Metres around a box within which points belong to the object."""

_GROUND_WITHIN = 20.0
"""Largest distance in metres to the object whose lower side gives the height of the ground."""

_TRIES = 3


@dataclass(frozen=True)
class _Cutout:
    """An object on its own: box (9,), label, points (M, 5) of all sweeps, and the number of the newest sweep's."""

    box: NDArray[np.float32]
    label: int
    points: NDArray[np.float32]
    newest: int


def paste_objects(labelled: LabelledFrame, donors: list[LabelledFrame], random: np.random.Generator) -> LabelledFrame:
    """Return a frame without cameras with objects of other frames, of classes of which it has few.

    An object keeps its distance from the LiDAR, and the side that it shows to it: it is turned about the LiDAR by a
    random angle. It stands on the ground of the nearest object. Objects do not overlap, and points of the frame within
    a new object's box are removed. The new objects throw no shadow, as in SECOND.

    Raises:
        ValueError: the frame has cameras, whose pictures would not show the objects.
    """
    if labelled.frame.cameras:
        raise ValueError("objects can be pasted only into frames without cameras, whose pictures would not show them")
    if labelled.frame.points is None:
        return labelled
    boxes, labels, points = list(labelled.truth.boxes), list(labelled.truth.labels), labelled.frame.points
    pasted: list[_Cutout] = []
    for donor in donors:
        for index in random.permutation(len(donor.truth)):
            label = int(donor.truth.labels[index])
            if labels.count(label) >= _ENOUGH or donor.truth.lidar_points[index] < _LEAST_POINTS:
                continue
            placed = _placed(donor, index, np.array(boxes, np.float32).reshape(-1, 9), random)
            if placed is not None:
                boxes.append(placed.box)
                labels.append(label)
                pasted.append(placed)
    if not pasted:
        return labelled
    covered = np.zeros(len(points), np.bool_)
    for cutout in pasted:
        covered[_inside(points, cutout.box)] = True
    cloud = np.concatenate([points[~covered], *(cutout.points for cutout in pasted)])
    return replace(
        labelled,
        frame=replace(labelled.frame, points=cloud),
        truth=_with_objects(labelled.truth, pasted),
    )


def _placed(
    donor: LabelledFrame, index: int, boxes: NDArray[np.float32], random: np.random.Generator
) -> _Cutout | None:
    """Return an object of another frame at a free place; None if none was found."""
    for _ in range(_TRIES):
        angle = float(random.uniform(-np.pi, np.pi))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
        moved = _turned(donor.truth.boxes[index], turn, angle)
        distances = np.hypot(*(boxes[:, :2] - moved[:2]).T)
        reaches = np.hypot(boxes[:, 3], boxes[:, 4]) / 2 + np.hypot(moved[3], moved[4]) / 2
        if len(boxes) == 0 or distances.min() > _GROUND_WITHIN or (distances < reaches).any():
            continue
        nearest = boxes[distances.argmin()]
        lift = (nearest[2] - nearest[5] / 2) - (moved[2] - moved[5] / 2)
        points = donor.frame.points
        assert points is not None  # the object has points
        own = points[_inside(points, donor.truth.boxes[index])]
        own[:, :2] = own[:, :2] @ turn.T
        own[:, 2] += lift
        moved[2] += lift
        return _Cutout(moved, int(donor.truth.labels[index]), own, int((own[:, 4] == 0).sum()))
    return None


def _turned(box: NDArray[np.float32], turn: NDArray[np.float32], angle: float) -> NDArray[np.float32]:
    moved: NDArray[np.float32] = box.copy()
    moved[:2], moved[7:9] = turn @ box[:2], turn @ box[7:9]
    moved[6] = (box[6] + angle + np.pi) % (2 * np.pi) - np.pi
    return moved


def _inside(points: NDArray[np.float32], box: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the indices of the points (N, 5) in a box (9,), which was elsewhere when older points were measured."""
    return points_in_box(moved_with_object(points, np.nan_to_num(box[7:9])), box, _MARGIN)


def _with_objects(truth: GroundTruth, pasted: list[_Cutout]) -> GroundTruth:
    """Return the objects with those pasted, whose tracks are unknown."""
    count = len(pasted)
    return GroundTruth(
        np.concatenate([truth.boxes, [cutout.box for cutout in pasted]]).astype(np.float32),
        np.concatenate([truth.labels, [cutout.label for cutout in pasted]]),
        np.concatenate([truth.tracks, np.full(count, -1)]),
        np.concatenate([truth.lidar_points, [cutout.newest for cutout in pasted]]),
        np.concatenate([truth.visibility, np.zeros((count, truth.visibility.shape[1]), np.float32)]),
        truth.classes,
    )
