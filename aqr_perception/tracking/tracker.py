# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Tracker: detections of frame after frame become tracks."""

import itertools
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import Detections
from aqr_perception.tracking import motion
from aqr_perception.tracking.association import Pairs, assign, assign_nearest
from aqr_perception.tracking.motion import Floats, Motion, MotionNoise
from aqr_perception.tracking.track_list import Observations, Tracks, observed
from aqr_perception.tracking.track_options import TrackingOptions

_SMOOTHING = 0.5
"""Share of a new detection in a track's height, size and score."""
_WEIGHT_SECONDS = 1.0
"""Time constant of the smoothed weights."""
_SCORE_SECONDS = 1.0
"""Time in which the score of a missed object falls to 1/e."""


class Tracker:
    """Identity of objects across frames, by position, class and velocity.

    Deterministic: equal frames give equal tracks, whatever the order of the detections in a frame. Frames may have any
    distance in time. Cleared by `clear`, by a stamp that is not newer than the last, and by other classes.

    Source: constant-velocity Kalman filter and Hungarian method as AB3DMOT (arXiv:1907.03961), with detected velocities
    as CenterPoint (arXiv:2006.11275).

    Args:
        ids: new identities; those of several trackers may come from one iterator.
        method: `nearest` joins each detection with the nearest last position instead, and never predicts: the plain
            baseline of the evaluation.

    Attributes:
        ids: (N,) identity of each detection of the last frame, in their order; 0: it has no track. A track has its
            identity before `min_hits` publishes it.
    """

    def __init__(
        self,
        options: TrackingOptions = TrackingOptions(),  # noqa: B008  # frozen
        ids: Iterator[int] | None = None,
        method: Literal["kalman", "nearest"] = "kalman",
    ) -> None:
        self.options = options
        self._ids = itertools.count(1) if ids is None else ids
        self._method = method
        self.clear()

    @property
    def _noise(self) -> MotionNoise:
        return MotionNoise(velocity=self.options.velocity_error)

    def clear(self) -> None:
        """End all tracks."""
        self.ids = np.zeros(0, np.int64)
        self._stamp_ns: int | None = None
        self._tracks = _none(())
        self._motion = Motion(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 2, 2)))

    def update(self, stamp_ns: int, detections: Detections, to_fixed: Floats) -> Tracks:
        """Return the tracks at the time of a frame.

        Args:
            stamp_ns: the frame's time in nanoseconds.
            detections: of the frame, in the model frame.
            to_fixed: (4, 4), model frame at that time -> a frame fixed to the ground, the same in all frames.
        """
        if self._stamp_ns is not None and (stamp_ns <= self._stamp_ns or detections.classes != self._tracks.classes):
            self.clear()
        if self._stamp_ns is None:
            self._tracks = _none(detections.classes)
            self._stamp_ns = stamp_ns
        seconds = (stamp_ns - self._stamp_ns) / 1e9
        self._stamp_ns = stamp_ns
        found = observed(detections, to_fixed)
        self._predict(seconds)
        pairs = self._pairs(found)
        self.ids = np.zeros(len(detections), np.int64)
        self.ids[found.places[pairs[1]]] = self._tracks.ids[pairs[0]]
        self._take(pairs, found, seconds)
        self._end()
        self._begin(np.setdiff1d(np.arange(len(found.scores)), pairs[1]), found)
        shown = self._tracks.hits >= self.options.min_hits
        if self._method == "nearest":
            shown &= self._tracks.missed == 0
        return self._tracks.keep(shown)

    def _predict(self, seconds: float) -> None:
        tracks = self._tracks
        if self._method == "kalman":
            self._motion = motion.predict(self._motion, seconds, self._noise)
        self._tracks = _changed(
            tracks, ages=tracks.ages + seconds, unseen=tracks.unseen + seconds, missed=tracks.missed + 1
        )
        # Before the association: an object that was away for too long is a new one.
        self._keep(self._tracks.unseen <= self.options.max_age)

    def _pairs(self, found: Observations) -> Pairs:
        limit, labels = self.options.max_distance, self._tracks.labels
        if self._method == "nearest":
            return assign_nearest(self._motion.position, labels, found.boxes[:, :2], found.labels, limit)
        return assign(self._motion, labels, found.boxes[:, :2], found.labels, limit, self._noise)

    def _take(self, pairs: Pairs, found: Observations, seconds: float) -> None:
        """Update the tracks that have a detection, and lower the scores of the others."""
        index, detection = pairs
        tracks, boxes = self._tracks, found.boxes[detection]
        before = self._motion.at(index)
        if self._method == "kalman":
            after = motion.update(before, boxes[:, :2], boxes[:, 7:9], self._noise)
        else:
            after = motion.begin(boxes[:, :2], boxes[:, 7:9], self._noise)
        state = self._motion
        position, velocity, covariance = state.position.copy(), state.velocity.copy(), state.covariance.copy()
        position[index], velocity[index], covariance[index] = after.position, after.velocity, after.covariance
        self._motion = Motion(position, velocity, covariance)

        gap = tracks.unseen[index]
        kept_boxes, scores = tracks.boxes.copy(), tracks.scores * np.exp(-seconds / _SCORE_SECONDS)
        kept_boxes[index, 2:6] += _SMOOTHING * (boxes[:, 2:6] - kept_boxes[index, 2:6])
        kept_boxes[index, 6] = boxes[:, 6]
        scores[index] = tracks.scores[index] + _SMOOTHING * (found.scores[detection] - tracks.scores[index])
        weights, share = tracks.weights.copy(), 1.0 - np.exp(-gap / _WEIGHT_SECONDS)
        weights[index] += share[:, None] * (found.weights[detection] - weights[index])
        hits, missed, unseen = tracks.hits.copy(), tracks.missed.copy(), tracks.unseen.copy()
        hits[index] += 1
        missed[index], unseen[index] = 0, 0.0
        self._tracks = _changed(
            tracks, boxes=kept_boxes, scores=scores, weights=weights, hits=hits, missed=missed, unseen=unseen
        )
        self._write_motion()

    def _end(self) -> None:
        self._keep((self._tracks.missed == 0) | (self._tracks.scores >= self.options.death_score))

    def _begin(self, free: NDArray[np.intp], found: Observations) -> None:
        free = free[found.scores[free] >= self.options.birth_score]
        boxes, count = found.boxes[free], len(free)
        begun = motion.begin(boxes[:, :2], boxes[:, 7:9], self._noise)
        new = Tracks(
            ids=np.fromiter(itertools.islice(self._ids, count), np.int64, count),
            boxes=boxes,
            scores=found.scores[free],
            labels=found.labels[free],
            ages=np.zeros(count),
            hits=np.ones(count, np.int64),
            missed=np.zeros(count, np.int64),
            unseen=np.zeros(count),
            velocity_variance=np.zeros(count),
            weights=found.weights[free],
            classes=self._tracks.classes,
        )
        self.ids[found.places[free]] = new.ids
        self._tracks = _joined(self._tracks, new)
        self._motion = self._motion.joined(begun)
        self._write_motion()

    def _write_motion(self) -> None:
        """Copy position, velocity and its variance to the tracks."""
        boxes, state = self._tracks.boxes.copy(), self._motion
        boxes[:, :2], boxes[:, 7:9] = state.position, state.velocity
        self._tracks = _changed(self._tracks, boxes=boxes, velocity_variance=state.covariance[:, 1, 1])

    def _keep(self, selection: NDArray[np.bool_]) -> None:
        self._tracks, self._motion = self._tracks.keep(selection), self._motion.at(selection)


def _none(classes: tuple[str, ...]) -> Tracks:
    whole, real = np.zeros(0, np.int64), np.zeros(0)
    return Tracks(
        whole, np.zeros((0, 9)), real, whole, real, whole, whole, real, real, np.zeros((0, 2)), classes
    )  # fmt: skip


def _changed(tracks: Tracks, **changes: NDArray[np.float64] | NDArray[np.int64]) -> Tracks:
    return Tracks(**{**tracks.__dict__, **changes})


def _joined(first: Tracks, second: Tracks) -> Tracks:
    arrays = {
        name: np.concatenate([value, getattr(second, name)])
        for name, value in first.__dict__.items()
        if name != "classes"
    }
    return Tracks(**arrays, classes=first.classes)
