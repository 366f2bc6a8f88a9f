# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Share of the decoder's cross-attention on each sensor, over the detections of many frames."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from aqr_perception.evaluation.headroom.oracle import Broken
from aqr_perception.frame import Frame, Result


@dataclass(frozen=True)
class AttentionShares:
    """Score-weighted sums of the attention in the last decoder layer; sums of several frames add up.

    Attributes:
        scores: sum of the detections' scores.
        lidar: sum of the attention to the LiDAR.
        cameras: the same by camera name.
        broken: the same to sensors that are broken somewhere in their frame.
    """

    scores: float = 0.0
    lidar: float = 0.0
    cameras: Mapping[str, float] = field(default_factory=dict)
    broken: float = 0.0

    def __add__(self, other: "AttentionShares") -> "AttentionShares":
        names = dict.fromkeys((*self.cameras, *other.cameras))
        return AttentionShares(
            self.scores + other.scores,
            self.lidar + other.lidar,
            {name: self.cameras.get(name, 0.0) + other.cameras.get(name, 0.0) for name in names},
            self.broken + other.broken,
        )

    @property
    def means(self) -> "AttentionShares | None":
        """The mean shares in 0..1, with `scores` 1; None without detections."""
        if not self.scores > 0:
            return None
        cameras = {name: mass / self.scores for name, mass in self.cameras.items()}
        return AttentionShares(1.0, self.lidar / self.scores, cameras, self.broken / self.scores)

    def as_dict(self) -> dict[str, object] | None:
        """Return the mean shares; None without detections."""
        means = self.means
        if means is None:
            return None
        return {"lidar": means.lidar, "cameras": dict(means.cameras), "broken": means.broken}


def attention_shares(frame: Frame, result: Result, broken: Broken) -> AttentionShares:
    """Return the sums of a frame, detected with `DetectionOptions.attention`; empty if the model gives no attention.

    Args:
        frame: the frame as it was given to the detector.
        result: its detections.
        broken: what is broken in it.
    """
    if result.queries is None or result.queries.attention is None:
        return AttentionShares()
    scores = result.detections.scores.astype(np.float64)
    lidar, *cameras = (float(mass) for mass in scores @ result.queries.attention.astype(np.float64))
    # A model without cameras gives none attention.
    by_name = dict(zip((view.name for view in frame.cameras), cameras, strict=False))
    on_broken = sum(by_name.get(name, 0.0) for name in broken.cameras) + (lidar if broken.lidar else 0.0)
    return AttentionShares(float(scores.sum()), lidar, by_name, on_broken)
