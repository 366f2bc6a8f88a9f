# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Ghost objects in LiDAR point clouds: echoes of objects where none is, as from mirrors and crosstalk."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from aqr_perception.data.corruption.lidar_corruption import (
    CELLS,
    REACH,
    CorruptedCloud,
    cell_centres,
    points_in_box,
    uniform_health,
)

_FEWEST_POINTS = 5
_CLEARANCE = 3.0
"""Least distance in metres between the edges of a ghost and of a true object or another ghost."""
_TRIES = 20
_SHELL = (4.5, 1.9, 1.6)
"""Length, width and height in metres of the ghosts of a frame without objects to copy."""
_SHELL_POINTS = 60


def with_ghosts(points: NDArray[np.float32], boxes: NDArray[np.float32], count: int, rng: Generator) -> CorruptedCloud:
    """Return the points with up to `count` ghosts, with health 0 in and around them.

    A ghost is a copy of the points on a random object, turned about the vertical axis of the model frame to an azimuth
    where no object is, so that its range and density fit. Nothing else changes: the ghost hides nothing. Frames without
    an object of five points get the near face and the roof of a car instead. Ghosts that find no free place in 20 draws
    are left out.

    Args:
        points: (N, 5).
        boxes: (M, 9) true objects.
    """
    on_object = [points[points_in_box(points, box, margin=0.1)] for box in boxes]
    sources = [index for index, copied in enumerate(on_object) if len(copied) >= _FEWEST_POINTS]
    taken = [(box[:2].astype(np.float64), float(np.hypot(*box[3:5]) / 2)) for box in boxes]
    health = uniform_health(1.0)
    x, y = cell_centres()
    added = [points]
    for _ in range(count):
        if sources:
            index = sources[int(rng.integers(len(sources)))]
            box, copied = boxes[index], on_object[index]
        else:
            box, copied = _shell(points, rng)
        radius = float(np.hypot(*box[3:5]) / 2)
        for _ in range(_TRIES):
            angle = rng.uniform(-np.pi, np.pi)
            place = _rotation(angle) @ box[:2].astype(np.float64)
            if all(np.hypot(*(place - centre)) > radius + other + _CLEARANCE for centre, other in taken):
                ghost = copied.copy()
                ghost[:, :2] = copied[:, :2] @ _rotation(angle).T
                added.append(ghost)
                taken.append((place, radius))
                # A margin of one cell gives small ghosts a cell even on a coarser grid.
                health[np.hypot(x - place[0], y - place[1]) < radius + 2 * REACH / CELLS] = 0.0
                break
    return CorruptedCloud(np.concatenate(added) if len(added) > 1 else points, health)


def _rotation(angle: float) -> NDArray[np.float64]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _shell(points: NDArray[np.float32], rng: Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a box (9,) on the ground ahead on the x axis, and points (60, 5) on its near face and roof."""
    length, width, height = _SHELL
    distance = rng.uniform(8, 30)
    ground = float(np.quantile(points[:, 2], 0.1)) if len(points) else -1.8
    box = np.array([distance, 0, ground + height / 2, length, width, height, 0, 0, 0], np.float32)
    place = rng.uniform(-0.5, 0.5, (_SHELL_POINTS, 3)) * _SHELL
    place[: _SHELL_POINTS // 2, 0] = -length / 2  # the face towards the sensor
    place[_SHELL_POINTS // 2 :, 2] = height / 2
    shell = np.zeros((_SHELL_POINTS, 5), np.float32)
    shell[:, :3] = place + box[:3]
    shell[:, 3] = 40.0
    return box, shell
