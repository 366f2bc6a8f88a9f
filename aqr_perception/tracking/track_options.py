# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Settings of the tracker."""

from dataclasses import dataclass

from aqr_perception.tracking.motion import MotionNoise


@dataclass(frozen=True)
class TrackingOptions:
    """When tracks begin, which detections they take, and when they end.

    Attributes:
        enabled: whether the node tracks.
        max_age: seconds without a detection after which a track ends; until then it is predicted.
        birth_score: lowest score with which a detection that fits no track begins one; detections with less only
            continue tracks.
        death_score: a track ends when its score, which falls while the object is missed, is below this.
        min_hits: detections of a track before it is given out.
        max_distance: largest distance in metres between a detection and a track's predicted position.
        velocity_error: standard deviation of the detected velocities in m/s; see `motion.MotionNoise`.
    """

    enabled: bool = False
    max_age: float = 1.5
    birth_score: float = 0.3
    death_score: float = 0.05
    min_hits: int = 1
    max_distance: float = 4.0
    velocity_error: float = MotionNoise.velocity
