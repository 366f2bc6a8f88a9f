# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Assignment of detections to tracks."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from aqr_perception.tracking.motion import Floats, Motion, MotionNoise

_GATE = 9.21
"""99 percent quantile of the squared Mahalanobis distance in two dimensions."""

Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]


def assign(
    predicted: Motion,
    track_labels: NDArray[np.int64],
    position: Floats,
    labels: NDArray[np.int64],
    max_distance: float,
    noise: MotionNoise,
) -> Pairs:
    """Return which detections belong to which tracks: indices of tracks, and of their detections.

    The pairs have the smallest sum of squared Mahalanobis distances (Hungarian method, as AB3DMOT, arXiv:1907.03961).
    A pair has one class, and detected and predicted position agree within `max_distance` and the track's uncertainty,
    which grows while the object is missed.

    Args:
        predicted: motion of T tracks at the detections' time.
        track_labels: (T,) classes of the tracks.
        position: (N, 2) detected positions in metres, in the tracks' frame.
        labels: (N,) classes of the detections.
        max_distance: in metres.
    """
    distance = _squared_distances(predicted.position, position)
    variance = predicted.covariance[:, 0, 0] + noise.position**2
    cost = distance / variance[:, None]
    allowed = (track_labels[:, None] == labels) & (distance <= max_distance**2) & (cost <= _GATE)
    # A forbidden pair costs as much as none, so that good pairs are not torn apart to make more pairs.
    tracks, detections = linear_sum_assignment(np.where(allowed, cost, _GATE + 1.0))
    kept = allowed[tracks, detections]
    return tracks[kept], detections[kept]


def assign_nearest(
    last: Floats,
    track_labels: NDArray[np.int64],
    position: Floats,
    labels: NDArray[np.int64],
    max_distance: float,
) -> Pairs:
    """Return which detections belong to which tracks: the nearest pair of one class first, until `max_distance`.

    Greedy by distance, as CenterPoint (arXiv:2006.11275) if `last` are predicted positions.

    Args:
        last: (T, 2) positions of the tracks, others as in `assign`.
    """
    distance = _squared_distances(last, position)
    distance[track_labels[:, None] != labels] = np.inf
    tracks: list[int] = []
    detections: list[int] = []
    while distance.size and (nearest := distance.argmin()) >= 0:
        track, detection = divmod(int(nearest), distance.shape[1])
        if distance[track, detection] > max_distance**2:
            break
        tracks.append(track)
        detections.append(detection)
        distance[track], distance[:, detection] = np.inf, np.inf
    return np.array(tracks, np.intp), np.array(detections, np.intp)


def _squared_distances(first: Floats, second: Floats) -> Floats:
    squared: Floats = ((first[:, None] - second) ** 2).sum(axis=2)
    return squared
