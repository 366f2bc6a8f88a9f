# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Time of the tracker for one frame."""

import time
from dataclasses import asdict, dataclass

import numpy as np

from aqr_perception.frame import Detections
from aqr_perception.tracking.track_options import TrackingOptions
from aqr_perception.tracking.tracker import Tracker


@dataclass(frozen=True)
class TrackingTime:
    """Milliseconds of one frame.

    Attributes:
        objects: detections in each frame, and about as many tracks.
        median, p95: milliseconds.
    """

    objects: int
    median: float
    p95: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)

    def __str__(self) -> str:
        return f"tracking, {self.objects} objects: median {self.median:.2f} ms, 95th percentile {self.p95:.2f} ms"


def run(objects: int, repeats: int) -> TrackingTime:
    """Measure frames of moving objects, 10 a second, of which each frame misses a tenth."""
    rng = np.random.default_rng(0)
    place, velocity = rng.uniform(-50, 50, (objects, 2)), rng.normal(0, 4, (objects, 2))
    labels = rng.integers(0, 10, objects)
    tracker, spent = Tracker(TrackingOptions()), []
    for frame in range(repeats + 10):
        seen = rng.random(objects) > 0.1
        boxes = np.zeros((objects, 9), np.float32)
        boxes[:, :2] = place + velocity * 0.1 * frame + rng.normal(0, 0.2, place.shape)
        boxes[:, 3:6], boxes[:, 7:9] = (4.0, 2.0, 1.5), velocity
        weight = np.full(seen.sum(), 0.5, np.float32)
        scores = rng.uniform(0.4, 1.0, seen.sum()).astype(np.float32)
        detections = Detections(
            boxes[seen], scores, labels[seen], weight, weight, np.zeros((len(weight), 0), np.float32)
        )
        start = time.perf_counter()
        tracker.update(frame * 100_000_000, detections, np.eye(4))
        spent.append(1e3 * (time.perf_counter() - start))
    return TrackingTime(objects, float(np.median(spent[10:])), float(np.percentile(spent[10:], 95)))
